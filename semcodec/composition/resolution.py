"""From parsed items to stages that fit: fills every slot of a spec, and threads shapes and types through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from semcodec.component import Component, Kind
from semcodec.composition.binding import Binder, Bound
from semcodec.composition.grammar import Item, Spec, parse_item
from semcodec.composition.prefixes import settle
from semcodec.composition.registry import import_target
from semcodec.composition.selector_slots import BUDGET, assign
from semcodec.errors import PluginError, SemcodecError, did_you_mean, first_line
from semcodec.specs import BackboneSpec, EncoderSpec, FeatureSpec, SpecMismatch, describe, misformed, mismatch

DEFAULT_ENTROPY = "rans"
DEFAULT_RECOVERER = "none"
INPUT = "input"


@dataclass(frozen=True)
class StageSpecs:
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

    @property
    def task(self) -> str | None:
        """As its spec says, or the trait of a family whose members are known once they are built."""
        if self.spec is not None:
            return self.spec.task
        named: str | None = self.bound.component.traits.get("task")
        return import_target(named, self.bound.name)(**self.bound.build) if named and ":" in named else named


_Found = list[tuple[Item, Component]]


def resolve(parsed: Spec, binder: Binder, known: Mapping[str, BackboneSpec], seen: str | None = None) -> dict[str, Any]:
    """What a ``Composition`` of the spec consists of, by field. Raises SpecError, PluginError.

    known: specs of Backbones that were built, by weights item. seen: of several Backbones, the name of the one that the
    composition is seen with.
    """
    found: _Found = [(item, binder.find(item)) for item in parsed.items]
    encoder_item, encoder_type = _needed(binder, found, "encoder")
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
    tails = _tails(binder, found, default_cut, encoder_item, known)
    encoder, needs = settle(binder, encoder, {name: tail.task for name, tail in tails.items()})
    first = next(iter(tails.values()))
    models = _models(binder, encoder, first, known)
    if len(tails) > 1 and assigned.gate is not None:
        binder.fail(
            f"{assigned.gate.name} keeps what one model is sure of, and this stream is for {len(tails)}: leave it out",
            assigned.gate.item.span,
        )

    shown = [encoder.item, *assigned.shown]
    if str(recoverer.item) != str(default_recoverer.item):
        shown.append(recoverer.item)
    shown += [entropy.item] if entropy else []
    target = None if first.cut == default_cut else first.cut
    tails = {
        name: replace(tail, bound=replace(tail.bound, item=replace(tail.bound.item, target=target)))
        for name, tail in tails.items()
    }
    shown += [tail.bound.item for tail in tails.values()]
    backbone = next(iter(tails.values())) if seen is None else tails[seen]
    by_parameter = {name: model.spec for name, model in models.items()}
    stages, *_ = [_threaded(binder, encoder, by_parameter, recoverer, tail) for tail in (backbone, *tails.values())]
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
        "tails": tails,
        "needs": needs,
        "models": {name: model.bound for name, model in models.items()},
        "source": backbone.spec,
        "task": backbone.task,
        "stages": stages,
    }


def _tails(
    binder: Binder, found: _Found, default_cut: str, default_from: Item, known: Mapping[str, BackboneSpec]
) -> dict[str, ResolvedBackbone]:
    """By name, in the order of their names, the Backbones that answer: several have one head and a task each."""
    given = sorted((pair for pair in found if pair[1].kind == "backbone"), key=lambda pair: pair[1].name)
    if not given:
        _needed(binder, found, "backbone")
    tails: dict[str, ResolvedBackbone] = {}
    for item, component in given:
        tail = backbone_of(binder, item, component, default_cut, default_from, known)
        for name, other in tails.items():
            reason = _apart(other, tail)
            if reason:
                later = max(item, other.bound.item, key=lambda one: one.span)
                binder.fail(f"{component.name} and {name} cannot share a stream: {reason}", later.span)
        tails[component.name] = tail
    return tails


def _apart(one: ResolvedBackbone, other: ResolvedBackbone) -> str | None:
    """Why two Backbones cannot answer one stream, as far as it is known before they are built; None: nothing."""
    if one.bound.name == other.bound.name:
        return "a model is named once"
    if one.cut != other.cut:
        return f"a stream has one cut, and these are {other.cut} and {one.cut}"
    if one.task is not None and one.task == other.task:
        return f"both do {one.task}, and of each task there is one model"
    if one.spec is None or other.spec is None:
        return None
    if one.spec.input != other.spec.input:
        return f"one takes {describe(other.spec.input)}, the other {describe(one.spec.input)}"
    if _prepared(one.spec) != _prepared(other.spec):
        return "pictures are brought to their size in different ways"
    if one.spec.cuts[one.cut] != other.spec.cuts[one.cut]:
        features = f"{describe(other.spec.cuts[one.cut])} and {describe(one.spec.cuts[one.cut])}"
        return f"their heads differ, which give {features} at {one.cut}"
    return None


def _prepared(spec: BackboneSpec) -> tuple[str, float, str]:
    return spec.fit, 1.0 if spec.fit == "letterbox" else spec.crop, spec.interpolation


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


def backbone_of(
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
        cuts = f"its cuts are {', '.join(spec.cuts)}"
        hint = did_you_mean(cut, spec.cuts)
        wants = "" if item.target else f" that {default_from.name} wants"
        binder.fail(
            f"{component.name} has no cut {cut!r}{wants}; {f'{hint} {cuts}' if hint else cuts}",
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
        found[name] = backbone_of(binder, named, binder.find(named, "backbone"), INPUT, named, known)
    return found


def _threaded(
    binder: Binder,
    encoder: Bound,
    models: Mapping[str, BackboneSpec | None],
    recoverer: Bound,
    backbone: ResolvedBackbone,
) -> StageSpecs:
    """What each stage makes of what the one before it gives, up to what the Backbone's tail accepts."""
    spec, at = backbone.spec, f"{backbone.bound.name}@{backbone.cut}"
    tasks: Sequence[str] | None = encoder.component.traits.get("tasks")
    task = backbone.task
    if task is not None and tasks is not None and task not in tasks:
        binder.fail(
            f"{encoder.name} is made for {' and '.join(tasks)}, {backbone.bound.name} does {task}",
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
    return StageSpecs(
        input=spec.input if spec else None,
        features=features,
        latent=coded.latent if coded else None,
        restored=restored,
        recovered=recovered,
        figures=coded.figures if coded else {},
    )


def _ask(binder: Binder, bound: Bound, refusal: str, *arguments: Any) -> Any:
    """Call the component's spec function; None if it has none. Raises PluginError for what is no spec."""
    function = binder.registry.spec_function(bound.component)
    if function is None:
        return None
    try:
        found = function(*arguments)
    except SpecMismatch as reason:
        binder.fail(f"{refusal}: {reason}", bound.item.span)
    except SemcodecError:
        raise
    except Exception as error:
        raise PluginError(
            f"the spec function of {bound.name} failed: {type(error).__name__}: {first_line(error)}"
        ) from error
    wrong = misformed(found, bound.component.kind)
    if wrong:
        raise PluginError(f"the spec function of {bound.name} gives {wrong}")
    return found
