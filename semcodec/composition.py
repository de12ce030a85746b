"""Fills the slots of a pipeline from a spec and proves that its stages fit, before any of them is built.

A ``Composition`` resolves itself when it is made and raises where it cannot, so a wrong one does not exist.
Nothing here imports a method: stages are known by their records and their torch-free spec functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from semcodec.arguments import Binder, Bound
from semcodec.component import Component, Kind
from semcodec.data.base import Request
from semcodec.errors import PluginError, SemcodecError, UsageError
from semcodec.grammar import Arg, Item, Spec, parse, parse_item
from semcodec.registry import Registry, get_registry
from semcodec.specs import BackboneSpec, EncoderSpec, FeatureSpec, SpecMismatch, mismatch
from semcodec.targets import BUDGET, assign

DEFAULT_ENTROPY = "rans"
DEFAULT_RECOVERER = "none"
INPUT = "input"


@dataclass(frozen=True)
class Stages:
    """What passes between the stages, one sample each; None where it is known only once the model is built.

    figures: the Encoder's rate by its paper's own formula.
    """

    input: FeatureSpec | None
    features: FeatureSpec | None
    latent: FeatureSpec | None
    restored: FeatureSpec | None
    recovered: FeatureSpec | None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ResolvedBackbone:
    """A Backbone with its arguments, its spec if it has a spec function, and the cut."""

    bound: Bound
    spec: BackboneSpec | None
    cut: str


@dataclass(frozen=True)
class Composition:
    """A pipeline whose every slot is filled and whose stages fit; equal to another of the same ``spec``.

    spec: canonical: encoder, selectors, recoverer, entropy, backbone; defaults left out, the entropy stage never.
    given: the Encoder's parameters that the spec itself sets, be it to their default.
    call: the Encoder's call parameters in declared order, what a packet carries.
    keep: by target, in the Encoder's order, the Selector and its budget (None: the Selector decides by itself).
    task: the Backbone's, or None if that is known only once it is built.
    source: the Backbone's spec, or None likewise. models: by parameter of the Encoder, the Backbones it is given.
    known: by item, specs of Backbones that only their being built told.

    Made by ``compose_spec``. Raises SpecError with a caret under the guilty item, or PluginError where a plugin
    is at fault.
    """

    parsed: Spec = field(repr=False, compare=False)
    registry: Registry = field(repr=False, compare=False)
    known: Mapping[str, BackboneSpec] = field(default_factory=dict, repr=False, compare=False)
    spec: str = field(init=False)
    encoder: Bound = field(init=False, repr=False, compare=False)
    given: frozenset[str] = field(init=False, repr=False, compare=False)
    keep: Mapping[str, tuple[Bound, int | float | None]] = field(init=False, repr=False, compare=False)
    gate: Bound | None = field(init=False, repr=False, compare=False)
    point: Bound | None = field(init=False, repr=False, compare=False)
    recoverer: Bound = field(init=False, repr=False, compare=False)
    entropy: Bound | None = field(init=False, repr=False, compare=False)
    backbone: Bound = field(init=False, repr=False, compare=False)
    cut: str = field(init=False, repr=False, compare=False)
    models: Mapping[str, Bound] = field(init=False, repr=False, compare=False)
    source: BackboneSpec | None = field(init=False, repr=False, compare=False)
    task: str | None = field(init=False, repr=False, compare=False)
    stages: Stages = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in _resolve(self.parsed, Binder(self.registry, self.parsed.text), self.known).items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return self.spec

    @property
    def call(self) -> Mapping[str, Any]:
        return self.encoder.call

    @property
    def request(self) -> Request | None:
        """The pixels that the Backbone wants; None where that is known only once it is built."""
        return Request.of(self.source) if self.source else None

    @property
    def selectors(self) -> list[Bound]:
        """Every Selector once, those that keep in the order of their targets, then the gate, then the point."""
        return [*(bound for bound, _ in self.keep.values()), *filter(None, (self.gate, self.point))]

    @property
    def bounds(self) -> list[Bound]:
        """Every component of the pipeline in canonical order."""
        entropy = [self.entropy] if self.entropy else []
        return [self.encoder, *self.selectors, self.recoverer, *entropy, self.backbone]

    def weights_key(self, slot: str) -> str:
        """What weights of a slot are looked up by: call parameters and the entropy stage do not count.

        An Encoder's and a Recoverer's depend on where they sit: "stae+vit-nano@input".
        """
        model = self.backbone if slot == "backbone" else self.models.get(slot)
        if model is not None:
            return model.weights_item
        bound = {"encoder": self.encoder, "recoverer": self.recoverer, "entropy": self.entropy}.get(slot)
        if bound is None:
            raise UsageError(f"{self.spec} has no single {slot} with weights")
        if slot == "entropy":
            return bound.weights_item
        backbone = parse_item(self.backbone.weights_item)
        return f"{bound.weights_item}+{replace(backbone, target=self.cut)}"

    def with_call(self, **overrides: Any) -> Composition:
        """The same pipeline at other call parameters of the Encoder, checked anew."""
        for name in overrides:
            if name not in self.call:
                known = ", ".join(self.call) or "none"
                close = get_close_matches(name, list(self.call), n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are: {known}"
                raise UsageError(f"{self.encoder.name} has no call parameter {name!r}; {hint}")
        return self._with(list(parse(self.spec).items), 0, self.encoder.component, overrides)

    def but_for_call(self) -> str:
        """What two pipelines have in common that differ in call parameters of the Encoder alone; no spec."""
        bounds = [bound for bound in self.bounds if bound not in (self.encoder, self.point)]
        return "+".join([self.encoder.weights_item, *(str(bound.item) for bound in bounds), self.cut])

    def with_args(self, name: str, **overrides: Any) -> Composition:
        """The same pipeline with other arguments of one component, checked anew: what a sweep varies.

        ``name``: as in the spec, ``top-k@frames`` where it stands there twice.
        """
        shown = list(parse(self.spec).items)
        found = [b for b in self.bounds if name in (b.name, f"{b.name}@{b.item.target}")]
        if len(found) > 1:
            options = " or ".join(f"{b.name}@{b.item.target}" for b in found)
            raise UsageError(f"{name!r} is there more than once: write {options}")
        if not found:
            names = ", ".join(dict.fromkeys(b.name for b in self.bounds))
            raise UsageError(f"{self.spec} has no component {name!r}; there are {names}")
        if found[0].item not in shown:  # a default, that the spec leaves out
            shown.append(found[0].item)
        return self._with(shown, shown.index(found[0].item), found[0].component, overrides)

    def _with(self, items: list[Item], at: int, component: Component, overrides: Mapping[str, Any]) -> Composition:
        for key, value in overrides.items():
            if not isinstance(value, bool | int | float | str):
                raise UsageError(f"{key} takes a number, a word or true or false, not {value!r}")
        positional = component.positional
        args = [a for a in items[at].args if (a.key or positional) not in overrides]
        args += [Arg(None if key == positional else key, value) for key, value in overrides.items()]
        items = [*items[:at], replace(items[at], args=tuple(args)), *items[at + 1 :]]
        return Composition(parse(str(Spec(tuple(items)))), self.registry, self.known)

    def knowing(self, built: Mapping[str, BackboneSpec]) -> Composition:
        """The same pipeline, checked anew with what building its Backbones told. ``built``: specs by weights item."""
        return replace(self, known={**self.known, **built})

    def licenses(self) -> dict[str, str]:
        """SPDX name of the licence by component name."""
        return {bound.name: bound.component.license for bound in self.bounds}


def compose_spec(text: str, registry: Registry | None = None) -> Composition:
    """Parse, fill the slots and check that the stages fit. Raises SpecError, PluginError."""
    return Composition(parse(text), registry or get_registry())


def resolve_backbone(text: str, registry: Registry | None = None) -> ResolvedBackbone:
    """A spec that names a Backbone alone, as for training it. Raises SpecError, PluginError."""
    item = parse_item(text)
    binder = Binder(registry or get_registry(), text.strip())
    component = binder.find(item)
    if component.kind != "backbone":
        binder.fail(f"a backbone is expected here, and {component.name} is of kind {component.kind}", item.span)
    return _backbone(binder, item, component, INPUT, item, {})


_Found = list[tuple[Item, Component]]


def _resolve(parsed: Spec, binder: Binder, known: Mapping[str, BackboneSpec]) -> dict[str, Any]:
    found: _Found = [(item, binder.find(item)) for item in parsed.items]
    encoder_item, encoder_type = _needed(binder, found, "encoder")
    backbone_item, backbone_type = _needed(binder, found, "backbone")
    chosen_recoverer, chosen_entropy = _only(binder, found, "recoverer"), _only(binder, found, "entropy")
    for item, component in found:
        if item.target is not None and component.kind not in ("backbone", "selector"):
            binder.fail("'@' names the cut of a backbone or what a selector selects, nothing else", item.target_span)

    args = binder.by_key(encoder_type, encoder_item)
    given = [(item, component) for item, component in found if component.kind == "selector"]
    assigned = assign(binder, encoder_type, encoder_item, args, given)
    encoder = binder.bind(encoder_type, encoder_item, args)
    entropy = _entropy(binder, encoder_type, encoder_item, chosen_entropy)
    named = encoder_type.traits.get("recoverer", DEFAULT_RECOVERER).format(**encoder.params)
    usual = parse_item(named).at(encoder_item.span)
    default_recoverer = binder.bind(binder.find(usual, "recoverer"), usual)
    recoverer = binder.bind(chosen_recoverer[1], chosen_recoverer[0]) if chosen_recoverer else default_recoverer
    default_cut = encoder_type.traits.get("cut", INPUT)
    backbone = _backbone(binder, backbone_item, backbone_type, default_cut, encoder_item, known)
    models = _models(binder, encoder, backbone, known)

    shown = [encoder.item, *assigned.shown]
    if str(recoverer.item) != str(default_recoverer.item):
        shown.append(recoverer.item)
    shown += [entropy.item] if entropy else []
    cut = None if backbone.cut == default_cut else backbone.cut
    backbone = replace(backbone, bound=replace(backbone.bound, item=replace(backbone.bound.item, target=cut)))
    shown.append(backbone.bound.item)
    return {
        "spec": "+".join(map(str, shown)),
        "encoder": encoder,
        "given": frozenset(args),
        "keep": {
            target: (bound, encoder.params[target] if bound.component.traits.get(BUDGET) else None)
            for target, bound in assigned.keep.items()
        },
        "gate": assigned.gate,
        "point": assigned.point,
        "recoverer": recoverer,
        "entropy": entropy,
        "backbone": backbone.bound,
        "cut": backbone.cut,
        "models": {name: model.bound for name, model in models.items()},
        "source": backbone.spec,
        "task": backbone.spec.task if backbone.spec else None,
        "stages": _threaded(binder, encoder, {name: m.spec for name, m in models.items()}, recoverer, backbone),
    }


def _only(binder: Binder, found: _Found, kind: Kind) -> tuple[Item, Component] | None:
    of_kind = [(item, component) for item, component in found if component.kind == kind]
    if len(of_kind) > 1:
        names = f"{of_kind[0][0].name} and {of_kind[1][0].name}"
        binder.fail(f"one {kind} is enough, here are two: {names}; leave out one", of_kind[1][0].span)
    return of_kind[0] if of_kind else None


def _needed(binder: Binder, found: _Found, kind: Kind) -> tuple[Item, Component]:
    only = _only(binder, found, kind)
    if only is None:
        names = binder.registry.names(kind)
        known = f"add one of {', '.join(names[:12])}" if names else "no plugin that offers one is installed"
        binder.fail(f"this spec has no {kind}; {known}")
    return only


def _entropy(
    binder: Binder, encoder: Component, encoder_item: Item, chosen: tuple[Item, Component] | None
) -> Bound | None:
    if encoder.traits.get("entropy") == "none":
        if chosen:
            binder.fail(
                f"{encoder.name} codes its bytes itself, nothing is left for {chosen[0].name}: leave it out",
                chosen[0].span,
            )
        return None
    if chosen is None:
        item = Item(DEFAULT_ENTROPY).at(encoder_item.span)
        chosen = item, binder.find(item, "entropy")
    return binder.bind(chosen[1], chosen[0])


def _backbone(
    binder: Binder,
    item: Item,
    component: Component,
    default_cut: str,
    default_from: Item,
    known: Mapping[str, BackboneSpec],
) -> ResolvedBackbone:
    """The Backbone and its cut; ``default_from`` is the item to blame if the default is no cut of it."""
    bound = binder.bind(component, item)
    cut = item.target or default_cut
    spec: BackboneSpec | None = known.get(bound.weights_item) or _ask(binder, bound, component.name, bound.params)
    if spec is not None and cut not in spec.cuts:
        close = get_close_matches(cut, list(spec.cuts), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        wants = "" if item.target else f" that {default_from.name} wants"
        binder.fail(
            f"{component.name} has no cut {cut!r}{wants}; {hint}its cuts are {', '.join(spec.cuts)}",
            item.target_span if item.target else default_from.span,
        )
    return ResolvedBackbone(bound, spec, cut)


def _models(
    binder: Binder, encoder: Bound, backbone: ResolvedBackbone, known: Mapping[str, BackboneSpec]
) -> dict[str, ResolvedBackbone]:
    """The Backbones that are part of the Encoder: named by it, else as the server's names them, else the server's."""
    found = {}
    for name in encoder.component.traits.get("models", ()):
        text = encoder.params[name] or backbone.bound.component.traits.get(name) or backbone.bound.weights_item
        item = next((arg for arg in encoder.item.args if arg.key == name), encoder.item)
        try:
            named = parse_item(text)
        except SemcodecError:
            binder.fail(f"{name} of {encoder.name} names a backbone, as in {name}=deit-tiny, not {text!r}", item.span)
        named = replace(named.at(item.span), target=None)
        found[name] = _backbone(binder, named, binder.find(named, "backbone"), INPUT, named, known)
    return found


def _threaded(
    binder: Binder,
    encoder: Bound,
    models: Mapping[str, BackboneSpec | None],
    recoverer: Bound,
    backbone: ResolvedBackbone,
) -> Stages:
    """What each stage makes of what the one before it gives, up to what the Backbone's tail accepts."""
    spec, at = backbone.spec, f"{backbone.bound.name}@{backbone.cut}"
    tasks: Sequence[str] | None = encoder.component.traits.get("tasks")
    if spec is not None and tasks is not None and spec.task not in tasks:
        binder.fail(
            f"{encoder.name} is made for {' and '.join(tasks)}, {backbone.bound.name} does {spec.task}",
            encoder.item.span,
        )
    features = spec.cuts[backbone.cut] if spec else None
    coded: EncoderSpec | None = None
    if features is not None:
        params = {**encoder.params, **models}
        coded = _ask(binder, encoder, f"{encoder.name} cannot follow {at}", features, params)
    restored = coded.restored if coded else None
    recovered: FeatureSpec | None = None
    if restored is not None:
        why = f"{recoverer.name} cannot follow {encoder.name}"
        recovered = _ask(binder, recoverer, why, restored, recoverer.params)
    if spec is not None and recovered is not None:
        reason = mismatch(spec.accepts(backbone.cut), recovered)
        if reason:
            binder.fail(f"{at} {reason} from {encoder.name} through {recoverer.name}", recoverer.item.span)
    return Stages(
        input=spec.input if spec else None,
        features=features,
        latent=coded.latent if coded else None,
        restored=restored,
        recovered=recovered,
        figures=coded.figures if coded else {},
    )


def _ask(binder: Binder, bound: Bound, refusal: str, *arguments: Any) -> Any:
    """Call the component's spec function; None if it has none."""
    function = binder.registry.spec_function(bound.component)
    if function is None:
        return None
    try:
        return function(*arguments)
    except SpecMismatch as reason:
        binder.fail(f"{refusal}: {reason}", bound.item.span)
    except SemcodecError:
        raise
    except Exception as error:
        raise PluginError(f"the spec function of {bound.name} failed: {type(error).__name__}: {error}") from error
