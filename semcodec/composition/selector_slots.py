"""Settles which Selector chooses what: at most one ``keep`` per target of the Encoder, one ``gate``, one ``point``.

A target's budget is the Encoder's call parameter of the same name, its knob. A Selector with the trait ``budget``
obeys the knob, and ``top-k@frames:4`` is another way to write ``frames=4``. Any other decides for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from semcodec.component import Component
from semcodec.composition.binding import Binder, Bound
from semcodec.composition.grammar import Arg, Item, format_value, parse
from semcodec.errors import PluginError, did_you_mean

DEFAULT = "top-k"
BUDGET = "budget"  # the trait, and the Selector's parameter that stands for the knob

_Choice = tuple[Item, Component]


@dataclass(frozen=True)
class Assignment:
    """keep: by target, in the Encoder's order. gate, point: or None.

    shown: the items that a canonical spec names because they are not what the Encoder has anyway.
    """

    keep: dict[str, Bound]
    gate: Bound | None
    point: Bound | None
    shown: tuple[Item, ...]


def assign(binder: Binder, encoder: Component, item: Item, args: dict[str, Arg], given: list[_Choice]) -> Assignment:
    """Place the ``given`` Selectors and fill the rest with defaults.

    item: the Encoder's. args: its arguments by name; budgets that stand at Selectors are added to them.
    Raises SpecError under the Selector that does not fit.
    """
    own = [i.at(item.span) for text in encoder.traits.get("selectors", ()) for i in parse(text).items]
    own_keep, own_alone = _placed(binder, encoder, [(i, binder.find(i, "selector")) for i in own])
    given_keep, given_alone = _placed(binder, encoder, given)
    keep: dict[str, Bound] = {}
    shown = []
    for target in encoder.traits.get("targets", ()):
        plain = Item(DEFAULT, target=target).at(item.span)
        default = own_keep.get(target) or (plain, binder.find(plain, "selector"))
        choice = given_keep.get(target)
        if choice is None and target in args and not _obeys(default[1]):
            choice = plain, binder.find(plain, "selector")  # a knob that is given wants a Selector that obeys it
        usual = _keep(binder, encoder, target, default, {}, given=False)
        keep[target] = usual if choice is None else _keep(binder, encoder, target, choice, args, given=True)
        if str(keep[target].item) != str(usual.item):
            shown.append(keep[target].item)
    alone: dict[str, Bound] = {}
    for ability, (item, component) in (own_alone | given_alone).items():
        alone[ability] = binder.bind(component, item)
        usually = own_alone.get(ability)
        if not usually or str(alone[ability].item) != str(binder.bind(usually[1], usually[0]).item):
            shown.append(alone[ability].item)
    return Assignment(keep, alone.get("gate"), alone.get("point"), tuple(shown))


def _placed(
    binder: Binder, encoder: Component, choices: list[_Choice]
) -> tuple[dict[str, _Choice], dict[str, _Choice]]:
    """The Selectors by the target they keep, and those that stand alone by their ability."""
    keep: dict[str, _Choice] = {}
    alone: dict[str, _Choice] = {}
    for item, component in choices:
        ability = component.traits.get("abilities")
        if ability == ("keep",):
            target = _target(binder, encoder, item)
            if target in keep:
                other = keep[target][0].name
                binder.fail(f"{target} is already selected by {other}; leave out one of the two", item.span)
            keep[target] = item, component
        elif ability in (("gate",), ("point",)):
            if item.target is not None:
                binder.fail(f"{item.name} selects no part of a sample and takes no '@'", item.target_span)
            if ability == ("gate",) and not encoder.traits.get("predicts"):
                binder.fail(
                    f"{item.name} decides by the device's own prediction, and {encoder.name} makes none", item.span
                )
            if ability == ("point",) and not any(p.when == "call" for p in encoder.params):
                binder.fail(f"{encoder.name} has no call parameter that {item.name} could set: leave it out", item.span)
            if ability[0] in alone:
                what = "decides what is sent" if ability == ("gate",) else f"sets the knobs of {encoder.name}"
                binder.fail(f"{alone[ability[0]][0].name} already {what}; leave out one of the two", item.span)
            alone[ability[0]] = item, component
        else:
            raise PluginError(
                f"the abilities of selector {item.name} must be ('keep',), ('gate',) or ('point',), not {ability!r}"
            )
    return keep, alone


def _target(binder: Binder, encoder: Component, item: Item) -> str:
    targets: tuple[str, ...] = tuple(encoder.traits.get("targets", ()))
    if not targets:
        binder.fail(f"{encoder.name} has nothing to select from: leave out {item.name}", item.span)
    if item.target is None:
        if len(targets) == 1:
            return targets[0]
        options = " or ".join(f"{item.name}@{target}" for target in targets)
        binder.fail(f"{item.name} of what? {encoder.name} has several targets: write {options}", item.span)
    if item.target not in targets:
        hint = did_you_mean(item.target, targets, f"its targets are {', '.join(targets)}")
        binder.fail(f"{encoder.name} has no target {item.target!r}; {hint}", item.target_span)
    return item.target


def _keep(
    binder: Binder, encoder: Component, target: str, choice: _Choice, knobs: dict[str, Arg], *, given: bool
) -> Bound:
    """Bind the Selector of one target; a budget that stands at it becomes the Encoder's knob."""
    item, component = choice
    args = binder.by_key(component, item)
    knob = knobs.get(target)
    if not _obeys(component):
        if knob is not None:
            binder.fail(
                f"{item.name} decides by itself how much of {target} is kept: leave out either it or "
                f"{target}={format_value(knob.value)} of {encoder.name}",
                item.span,
            )
    elif BUDGET in args:
        budget = args.pop(BUDGET)
        if not given:
            raise PluginError(f"{encoder.name} sets the default of {target} at a selector, not at its parameter")
        if knob is not None:
            binder.fail(
                f"the budget of {target} is given twice, by {target}={format_value(knob.value)} of {encoder.name} and "
                f"by {item.name}; leave out one",
                budget.span,
            )
        knobs[target] = replace(budget, key=target)
    return binder.bind(component, replace(item, target=target), args)


def _obeys(component: Component) -> bool:
    return bool(component.traits.get(BUDGET))
