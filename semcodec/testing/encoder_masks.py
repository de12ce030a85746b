"""Whether an Encoder sends what Selectors choose: under masks that no Selector made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from semcodec.coding.rounds import TwoRounds
from semcodec.testing.cases import Case, cases
from semcodec.testing.subject import Subject, require
from semcodec.testing.tensors import comparable
from semcodec.types import Latent, Partial

PART = 3
"""One of so many units is kept: the first ones, or the last ones, or twice as many from the first on."""


def check_masks(subject: Subject) -> None:
    """Where other units are chosen, something else is sent; where more are, no less is sent or received.

    The first with every parameter at its default, since others may leave nothing to choose, and not of an Encoder with
    two rounds, whose server decides.
    """
    for case in cases(subject):
        for target in subject.component.traits.get("targets", ()):
            with case.name_failures():
                _check_target(case, target)


def _check_target(case: Case, target: str) -> None:
    under, units = _encoding(case, target)
    if units < PART:
        return
    count = units // PART
    first, last, more = under(0, count), under(units - count, units), under(0, 2 * count)
    differ = comparable([first.symbols, first.side]) != comparable([last.symbols, last.side])
    free = case.setting or isinstance(case.encoder, TwoRounds)
    require(differ or free, f"the first {target} are chosen, then the last, and the same is sent")
    few, many = _integers(first), _integers(more)
    require(few <= many, f"{count} {target} take {few} integers, twice as many {many}")
    received, then = (dict(_received(case.encoder.restore(latent))) for latent in (first, more))
    less = [name for name, share in received.items() if share > then.get(name, share) + 1e-6]
    require(not less, f"of {count} {target} more of {', '.join(less)} is received than of twice as many")


def _encoding(case: Case, target: str) -> tuple[Callable[[int, int], Latent], int]:
    """What one sample sends when units from one place to another are kept, and how many there are."""
    with torch.inference_mode():
        features = case.features(1)
        analysis = case.encoder.analyse(features)
        scores = case.encoder.scores(analysis, target, {})

    def under(start: int, stop: int) -> Latent:
        mask: Tensor = torch.zeros(scores.shape, dtype=torch.bool)
        mask[..., start:stop] = True
        with torch.inference_mode():
            [latent] = case.encoder.encode(features, analysis, {target: mask}, dict(case.composition.call))
        return latent

    return under, scores.shape[-1]


def _integers(latent: Latent) -> int:
    return sum(array.size for array in latent.symbols.values())


def _received(partial: Partial) -> Iterator[tuple[str, float]]:
    """Of each feature, how many values are there."""
    for name, tensor in partial.features.items():
        mask = partial.present.get(name)
        yield name, tensor.numel() * (1.0 if mask is None else float(mask.double().mean()))
