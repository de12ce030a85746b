"""The selection rules. Each chooses along the last axis of ``scores`` (B, ..., N), row by row.

Ties go to the lower index on every device, so a mask depends on nothing but the scores. All of it is numpy, and exact:
scores are compared, and added up in float64 one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semcodec.errors import SemcodecError, UsageError
from semcodec.interfaces import Selector

if TYPE_CHECKING:
    from semcodec.interfaces import Bool, Floats

Order = npt.NDArray[np.intp]


class TopK(Selector):
    """The units of highest score. ``budget``: used where ``keep`` is given none."""

    def __init__(self, budget: float | int | None = None) -> None:
        self.budget = budget

    def keep_array(self, scores: Floats, budget: float | int | None, sequence: Sequence[int]) -> Bool:
        """Bool mask (B, ..., N). Raises UsageError for a budget of nothing, SemcodecError for NaN scores."""
        count = _count(self.budget if budget is None else budget, scores.shape[-1])
        return _first(_ranked(scores), count)


class RandomSubset(Selector):
    """Units drawn uniformly, the same ones for a sample whatever batch or device it is in.

    budget: used where ``keep`` is given none. seed: with the sample's number, all that the draw depends on.
    """

    uses_scores = False

    def __init__(self, budget: float | int | None = None, seed: int = 0) -> None:
        self.budget, self.seed = budget, seed

    def keep_array(self, scores: Floats, budget: float | int | None, sequence: Sequence[int]) -> Bool:
        """Bool mask (B, ..., N). Raises UsageError for a budget of nothing."""
        units = scores.shape[-1]
        count = _count(self.budget if budget is None else budget, units)
        draws = np.empty(scores.shape, np.float64)
        for row, number in zip(draws, sequence, strict=True):
            # The axis' length in the counter keeps the draws of two targets, say frames and pixels, independent.
            stream = np.random.Philox(key=np.array([self.seed, number], np.uint64), counter=[0, 0, 0, units])
            row[...] = np.random.Generator(stream).random(row.shape)
        return _first(_ranked(draws), count)


class AttentionThreshold(Selector):
    """The units whose score reaches ``threshold``; where none does, the best one."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def keep_array(self, scores: Floats, budget: float | int | None, sequence: Sequence[int]) -> Bool:
        """Bool mask (B, ..., N). Raises SemcodecError for NaN scores."""
        # The threshold at the scores' own precision, so that a score which was set to it reaches it.
        return _first(_ranked(scores), 1) | (scores >= scores.dtype.type(self.threshold))


class AttentionSum(Selector):
    """The fewest units of highest score that together hold the share ``threshold`` of the score of all.

    Where all scores are zero each counts the same.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def keep_array(self, scores: Floats, budget: float | int | None, sequence: Sequence[int]) -> Bool:
        """Bool mask (B, ..., N), at least one a row. Raises SemcodecError for NaN, infinite or negative scores."""
        order = _ranked(scores)
        kept = np.zeros(scores.shape, np.bool_)
        if not scores.size:
            return kept
        if (scores < 0).any() or np.isinf(scores).any():
            raise SemcodecError("attention-sum needs finite scores of at least 0; use attention-threshold or top-k")
        mass = np.take_along_axis(scores.astype(np.float64), order, -1)
        mass = np.where(mass[..., :1] > 0, mass, 1.0)
        held = np.cumsum(mass, axis=-1)
        # A unit is needed as long as those before it fall short; the margin covers float64's rounding, so that
        # 0.9 of ten equal scores is nine.
        needed = held - mass < (self.threshold - 1e-12) * held[..., -1:]
        needed[..., 0] = True
        np.put_along_axis(kept, order, needed, -1)
        return kept


def _count(budget: float | int | None, units: int) -> int:
    """How many of ``units`` a budget keeps: a fraction to the nearest, at least one, never more than there are."""
    if budget is None:
        raise UsageError("a selection by budget needs one: an integer counts units, a fraction is of all")
    if not budget > 0 or (isinstance(budget, float) and budget > 1):
        raise UsageError(f"a budget is a count of at least 1 or a fraction above 0 and up to 1, not {budget!r}")
    return min(units, budget if isinstance(budget, int) else max(1, math.floor(budget * units + 0.5)))


def _ranked(scores: Floats) -> Order:
    """Indices (B, ..., N) by falling score, the lower index first among equals."""
    if np.isnan(scores).any():
        raise SemcodecError("the scores to select by are not numbers (NaN): check the input and the weights")
    return np.argsort(-scores, axis=-1, kind="stable")


def _first(order: Order, count: int) -> Bool:
    """Bool mask of the ``count`` first in ``order``."""
    mask = np.zeros(order.shape, np.bool_)
    np.put_along_axis(mask, order[..., :count], True, -1)
    return mask
