"""Checks of Selectors: masks that anything can be sent by, gates, and points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor

from semcodec.component import Component
from semcodec.composition.composition import Composition, compose_spec
from semcodec.errors import SemcodecError, UsageError, first_line
from semcodec.interfaces import Selector
from semcodec.testing.side_effects import witness
from semcodec.testing.subject import Act, Subject, extremes, no_draws, require, settings

Budget = float | int | None
NUMBERS = [7, 0, 1 << 40]
"""The samples' numbers in the stream."""


def checks(component: Component) -> Iterator[Callable[[Subject], None]]:
    """The checks of Selectors, in the order in which a failure is best understood."""
    yield check_builds
    if "keep" in component.traits.get("abilities", ()):
        yield check_mask
        if component.traits.get("budget"):
            yield check_budget
        yield check_order
        yield check_batch
        yield check_repeatable
        yield check_not_finite
    if "gate" in component.traits.get("abilities", ()):
        yield check_gate
        yield check_gate_extremes
    if "point" in component.traits.get("abilities", ()):
        yield check_point
        yield check_point_of_each
        yield check_point_given


def acts(subject: Subject) -> list[Act]:
    """What it chooses by scores, of predictions or of samples' numbers."""
    abilities = subject.component.traits["abilities"]

    def do(who: Selector, number: int) -> bytes:
        if "keep" in abilities:
            one = slice(number, number + 1)
            budgets = _budgets(subject)
            masks = [who.keep(s[one], b, NUMBERS[one]) for b in budgets for s in score_tables().values()]
            return b"".join(mask.numpy().tobytes() for mask in masks)
        if "gate" in abilities:
            return who.gate(logit_tables()["huge logits"].roll(number, 0)).numpy().tobytes()
        return repr([sorted(knobs.items()) for knobs in who.point(_example(subject), [NUMBERS[number]])]).encode()

    return [Act(f"setting {i}" if i else "defaults", who, do) for i, who in enumerate(_built(subject))]


def check_builds(subject: Subject) -> None:
    """It is made at each choice of its parameters."""
    _built(subject)


def check_mask(subject: Subject) -> None:
    """Bool, shaped as the scores, and in every row at least one unit is kept."""
    for selector, budget in each(subject):
        for what, scores in score_tables().items():
            mask = selector.keep(scores, budget, NUMBERS)
            right = mask.dtype == torch.bool and mask.shape == scores.shape
            require(right, f"{what}: the mask is {mask.dtype}{tuple(mask.shape)} for scores {tuple(scores.shape)}")
            require(bool(mask.any(-1).all()), f"{what}, budget {budget}: a row keeps nothing")


def check_budget(subject: Subject) -> None:
    """As many units as the budget says: a count exactly, a fraction to within rounding, at least one."""
    for selector, budget in each(subject):
        assert budget is not None
        for what, scores in score_tables().items():
            kept, units = selector.keep(scores, budget, NUMBERS).sum(-1), scores.shape[-1]
            exact = budget if isinstance(budget, int) else budget * units
            low, high = (min(units, max(1, bound)) for bound in (math.floor(exact), math.ceil(exact)))
            seen = f"{int(kept.min())} to {int(kept.max())}"
            right = bool(((kept >= low) & (kept <= high)).all())
            require(right, f"{what}: a budget of {budget} of {units} units keeps {seen}")


def check_order(subject: Subject) -> None:
    """Higher is more important: no unit is kept that scores less than one that is dropped."""
    for selector, budget in each(subject):
        for what, scores in score_tables().items() if selector.uses_scores else ():
            mask = selector.keep(scores, budget, NUMBERS)
            least = scores.masked_fill(~mask, math.inf).amin(-1)
            most = scores.masked_fill(mask, -math.inf).amax(-1)
            require(bool((least >= most).all()), f"{what}, budget {budget}: drops a unit of higher score than it keeps")


def check_batch(subject: Subject) -> None:
    """A sample's mask depends on its own scores and number alone."""
    for selector, budget in each(subject):
        for what, scores in score_tables().items():
            mask = selector.keep(scores, budget, NUMBERS)
            for row, number in enumerate(NUMBERS):
                alone = selector.keep(scores[row : row + 1].clone(), budget, [number])
                equal = torch.equal(alone[0], mask[row])
                require(equal, f"{what}, budget {budget}: sample {row} alone is selected otherwise than in a batch")


def check_repeatable(subject: Subject) -> None:
    """The same scores, ties too, give the same mask, from another instance too; nothing else changes."""
    for (selector, budget), (other, _) in zip(each(subject), each(subject), strict=True):
        for what, scores in score_tables().items():
            given = scores.clone()
            with no_draws():
                mask = selector.keep(given, budget, NUMBERS)
            require(torch.equal(given, scores), f"{what}: alters the scores")
            again = other.keep(given, budget, NUMBERS)
            require(torch.equal(mask, again), f"{what}, budget {budget}: another mask the second time")


def check_not_finite(subject: Subject) -> None:
    """NaN among the scores is refused in words; a Selector that does not look at scores may do without."""
    for selector, budget in each(subject):
        scores = torch.linspace(0, 1, 36).view(3, 12).clone()
        scores[1, 4] = math.nan
        try:
            selector.keep(scores, budget, NUMBERS)
        except SemcodecError:
            continue
        require(not selector.uses_scores, "selects by scores that are NaN")


def check_gate(subject: Subject) -> None:
    """One bool a sample, which depends on its own prediction alone and is the same again."""
    spread = torch.tensor([0, 1, 3, 9, 30, 1])[:, None]
    logits = torch.randn((6, 5), generator=torch.Generator().manual_seed(0)) * spread
    for setting in _build_settings(subject):
        gate: Selector = subject.make(**setting)
        with no_draws():
            sent = gate.gate(logits)
        right = sent.dtype == torch.bool and sent.shape == (6,)
        require(right, f"the gate gives {sent.dtype}{tuple(sent.shape)} for 6 samples, not 6 bools")
        require(torch.equal(gate.gate(logits), sent), "the gate decides otherwise the second time")
        alone = torch.cat([gate.gate(row[None]) for row in logits])
        require(torch.equal(alone, sent), "the gate's answer depends on the samples beside it")


def check_gate_extremes(subject: Subject) -> None:
    """Huge logits, a single class and no sample at all are decided; an answer of NaN is refused in words or sent."""
    for setting in _build_settings(subject):
        gate: Selector = subject.make(**setting)
        for what, logits in logit_tables().items():
            sent = gate.gate(logits)
            right = sent.dtype == torch.bool and sent.shape == logits.shape[:1]
            require(right, f"{what}: the gate gives {sent.dtype}{tuple(sent.shape)} for {len(logits)} samples")
            exact, shifted = gate.gate(logits.double()), gate.gate(logits - logits.amax(1, keepdim=True))
            require(torch.equal(exact, sent), f"{what}: the gate decides otherwise in float64")
            require(torch.equal(shifted, sent), f"{what}: the gate decides by more than the softmax of the logits")
        broken = torch.tensor([[0.0, 1.0, 2.0], [0.0, math.nan, 2.0]])
        try:
            sent = gate.gate(broken)
        except SemcodecError:
            continue
        require(bool(sent[1]), "lets an answer of NaN stand as the device's own")


def check_point(subject: Subject) -> None:
    """Of the example's pipeline, one setting a sample, of call parameters that the Encoder takes."""
    composition = _example(subject)
    for setting in _build_settings(subject):
        found = subject.make(**setting).point(composition, NUMBERS)
        require(len(found) == len(NUMBERS), f"{len(found)} settings for {len(NUMBERS)} samples")
        for knobs in found:
            try:
                composition.with_call(**knobs)
            except UsageError as error:
                require(False, f"sets what {composition.encoder.name} does not take: {first_line(error)}")


def check_point_of_each(subject: Subject) -> None:
    """A sample's setting depends on its own number alone and is the same again, from another instance too."""
    composition = _example(subject)
    for setting in _build_settings(subject):
        selector: Selector = subject.make(**setting)
        with no_draws():
            together = selector.point(composition, NUMBERS)
        alone = [subject.make(**setting).point(composition, [number])[0] for number in NUMBERS]
        require(alone == together, "a sample alone is set otherwise than among others")
        require(selector.point(composition, NUMBERS) == together, "sets the same samples otherwise the second time")


def check_point_given(subject: Subject) -> None:
    """What the spec itself sets stays, or is refused in words."""
    composition = _example(subject)
    for setting in _build_settings(subject):
        selector: Selector = subject.make(**setting)
        chosen = selector.point(composition, NUMBERS[:1])[0]
        for name in chosen:
            param = composition.encoder.component.param(name)
            for value in extremes(param) if param else ():
                given = composition.with_call(**{name: value})
                if value == chosen[name] or name not in given.given:  # its default, that a spec need not name
                    continue
                try:
                    now = selector.point(given, NUMBERS[:1])[0]
                except SemcodecError:
                    continue
                require(now.get(name, value) == value, f"sets {name} to {now.get(name)} where the spec says {value}")


def _example(subject: Subject) -> Composition:
    return compose_spec(subject.component.traits["example"], subject.registry)


def logit_tables() -> dict[str, Tensor]:
    """Logits whose naive softmax overflows, underflows or has nothing to compare."""
    return {
        "huge logits": torch.tensor([[3e4, 0, -3e4], [1e5, 1e5, -1e5], [-3e4, -3e4, -3e4]]),
        "a class that is ruled out": torch.tensor([[0.0, -math.inf, 1.0], [2.0, -math.inf, 2.0]]),
        "a single class": torch.tensor([[0.0], [7.0], [-1e4]]),
        "no sample": torch.zeros((0, 5)),
    }


def score_tables() -> dict[str, Tensor]:
    """Scores in [0, 1) of three samples; ties come in long rows, where unstable sorting shows."""
    draw = torch.Generator().manual_seed(0)
    return {
        "scores": torch.rand((3, 12), generator=draw),
        "scores in rows": torch.rand((3, 2, 40), generator=draw),
        "many scores": torch.rand((3, 1000), generator=draw),
        "equal scores": torch.full((3, 500), 0.25),
        "scores of few levels": torch.randint(0, 4, (3, 2, 600), generator=draw) / 8,
        "scores of zero": torch.zeros((3, 9)),
        "a single unit": torch.rand((3, 1), generator=draw),
    }


def each(subject: Subject) -> Iterator[tuple[Selector, Budget]]:
    """Instances at every setting, with budgets where the Selector obeys one."""
    for setting in _build_settings(subject):
        selector: Selector = subject.make(**setting)
        for budget in _budgets(subject):
            yield selector, budget


def _budgets(subject: Subject) -> tuple[Budget, ...]:
    return (1, 5, 10**6, 0.001, 0.4, 1.0) if subject.component.traits.get("budget") else (None,)


@lru_cache(maxsize=1)
def _built(subject: Subject) -> tuple[Selector, ...]:
    """One for each setting."""
    with witness(subject.heard):
        return tuple(subject.make(**setting) for setting in _build_settings(subject))


def _build_settings(subject: Subject) -> list[dict[str, object]]:
    """Without the parameter "budget": the pipeline gives the budget with the scores."""
    return settings([p for p in subject.component.params if p.when == "build" and p.name != "budget"])
