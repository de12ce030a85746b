"""What can be chosen: specs that fit an input and have their weights here, parts to add, and every knob of a spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from semcodec.component import Component, Param
from semcodec.composition.composition import Composition, compose_spec
from semcodec.composition.grammar import parse
from semcodec.composition.registry import Registry, get_registry, missing
from semcodec.errors import SemcodecError, UsageError
from semcodec.pipeline import weights
from semcodec.pipeline.weights import WeightsRequest
from semcodec.pipeline.zoo import rows

Kind = Literal["image", "video"]
WIDE = 3
"""How many times the largest usual value a bound may be and still end a slider."""
STEPS = 100


@dataclass(frozen=True)
class Control:
    """One knob. key: "component.name". kind: which control it gets; low, high and step are a slider's."""

    key: str
    label: str
    help: str
    kind: Literal["slider", "choice", "switch", "number", "text"]
    default: Any
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float = 1.0


def specs_that_fit(kind: Kind, request: WeightsRequest | None = None) -> list[str]:
    """Canonical specs whose model takes such inputs and whose weights are here, of every plugin that is installed.

    Those that cards of weights name come first; then every Encoder before every Backbone, at their defaults.
    """
    registry, request = get_registry(), request or WeightsRequest(offline=True)
    backbones = [c for c in registry if c.kind == "backbone" and _usable(c)]
    encoders = [c for c in registry if c.kind == "encoder" and _usable(c)]
    trained = [str(row["spec"]) for row in rows() if "encoder" in row["keys"]]
    tried = [*trained, *(f"{encoder.name}+{backbone.name}" for backbone in backbones for encoder in encoders)]
    found: dict[str, None] = {}
    for text in tried:
        composition = _composed(text, registry)
        if (
            composition
            and composition.request
            and composition.request.kind == kind
            and has_weights(composition, request)
        ):
            found.setdefault(composition.spec)
    return list(found)


def has_weights(composition: Composition, request: WeightsRequest) -> bool:
    """Whether every stage that learns has weights here. Fetches nothing."""
    c = composition
    slots = {"encoder": c.encoder.component, "recoverer": c.recoverer.component, "backbone": c.backbone.component}
    slots |= {name: bound.component for name, bound in c.models.items()}
    try:
        return all(
            weights.find(composition, slot, request, hub=False)
            for slot, component in slots.items()
            if _learns(slot, component, c.recoverer.component)
        )
    except SemcodecError:
        return False


def additions(composition: Composition) -> list[str]:
    """Items that the spec can take besides: Selectors by target, Recoverers, entropy stages in place of its own."""
    found = []
    for component in composition.registry:
        if component.kind not in ("selector", "recoverer", "entropy") or not _usable(component):
            continue
        targets = composition.encoder.component.traits.get("targets", ()) if component.kind == "selector" else ()
        for item in (component.name, *(f"{component.name}@{target}" for target in targets)):
            added = _composed(with_parts(composition.spec, [item], composition.registry), composition.registry)
            if added and added.spec != composition.spec:
                found.append(item)
    return found


def with_parts(spec: str, parts: list[str], registry: Registry | None = None) -> str:
    """A spec with items added; one of a kind of which there is one takes the place of what was there.

    Raises SpecError and UsageError.
    """
    registry, items = registry or get_registry(), [str(item) for item in parse(spec).items]
    for part in parts:
        kinds = registry.kinds(parse(part).items[0].name)
        single = {"recoverer", "entropy"} & set(kinds)
        items = [item for item in items if not single & set(registry.kinds(parse(item).items[0].name))]
        items.insert(len(items) - 1, part)
    return "+".join(items)


def controls(composition: Composition) -> list[Control]:
    """Every call parameter of the Encoder, then every parameter of the Selectors, as the plugins declare them."""
    encoder = composition.encoder
    found = [
        _control(encoder.name, param, encoder.params[param.name])
        for param in encoder.component.params
        if param.when == "call"
    ]
    for bound in composition.selectors:
        budget = bound.component.traits.get("budget")
        named = bound.component.params if not budget else ()  # what it obeys is the Encoder's parameter
        found += [_control(bound.name, param, bound.params[param.name]) for param in named]
    return list({control.key: control for control in found}.values())


def at(composition: Composition, settings: Mapping[str, Any]) -> Composition:
    """The same spec with knobs turned. settings: values by a control's key. Raises UsageError."""
    by_component: dict[str, dict[str, Any]] = {}
    known = {control.key: control for control in controls(composition)}
    for key, value in settings.items():
        if key not in known:
            raise UsageError(f"{composition.spec} has no knob {key!r}")
        if value is not None and value != known[key].default:
            component, _, name = key.rpartition(".")
            by_component.setdefault(component, {})[name] = _typed(value, known[key])
    for component, values in by_component.items():
        if component == composition.encoder.name:
            composition = composition.with_call(**values)
        else:
            composition = composition.with_args(component, **values)
    return composition


def _usable(component: Component) -> bool:
    return not component.name.endswith("/*") and not missing(component)


def _learns(slot: str, component: Component, recoverer: Component) -> bool:
    if slot == "encoder":  # whose recipe may be there for its Recoverer alone
        return bool(component.weights or (component.recipe and not recoverer.weights))
    return bool(component.weights or slot not in ("recoverer",))


def _composed(text: str, registry: Registry) -> Composition | None:
    try:
        return Composition(parse(text), registry) if registry is not get_registry() else compose_spec(text)
    except SemcodecError:
        return None


def _control(component: str, param: Param, value: Any) -> Control:
    key, label = f"{component}.{param.name}", f"{component}: {param.name}"
    if param.type is bool:
        return Control(key, label, param.help, "switch", value)
    if param.values and not param.open:
        return Control(key, label, param.help, "choice", value, values=param.values)
    if param.type is str:
        return Control(key, label, param.help, "text", value)
    low, high = _range(param, value)
    if low is None or high is None or low >= high:
        return Control(key, label, param.help, "number", value)
    step = 1.0 if param.type is int else 10 ** math.floor(math.log10((high - low) / STEPS))
    return Control(key, label, param.help, "slider", value, values=param.values, low=low, high=high, step=step)


def _range(param: Param, value: Any) -> tuple[float | None, float | None]:
    """Of a slider: its bounds, and the usual values where a bound is not there or far beyond them."""
    usual = [float(one) for one in (*param.values, value) if isinstance(one, int | float)]
    most = max(usual, default=None)
    high = param.high
    if most is not None and (high is None or (most > 0 and high > WIDE * most)):
        high = most
    low = param.low if param.low is not None else min(usual, default=None)
    return low, high


def _typed(value: Any, control: Control) -> Any:
    """As the parameter has it: browsers give whole numbers for floats, and the other way round."""
    if isinstance(control.default, bool) or not isinstance(value, int | float):
        return value
    whole = isinstance(control.default, int) or (control.default is None and float(value).is_integer())
    return int(value) if whole else float(value)
