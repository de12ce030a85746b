"""Accuracy with honest intervals, and paired comparisons; knows no task."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Z95 = 1.959963984540054
NORMAL = NormalDist()
RESAMPLES, SEED = 1000, 0
"""Of the bootstrap over samples."""
MOST_TEXT = 1 << 25
"""Bytes of what a record keeps of its samples, before it was packed."""


def wilson(right: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a proportion (Wilson, 1927), 95 % by default; (0, 1) without samples."""
    if not total:
        return 0.0, 1.0
    p, n = right / total, total
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    # Exact at the ends, where rounding would leave the proportion outside its own interval.
    return (max(0.0, low) if right else 0.0), (min(1.0, high) if right < total else 1.0)


def paired(first: Sequence[Any], second: Sequence[Any]) -> dict[str, float]:
    """Compare two methods on the same samples: who is right where the other is wrong.

    first, second: truth values by sample. Returns ``difference`` (of accuracies, first minus second), its 95 %
    interval ``low``, ``high`` (Wald, for paired proportions), and McNemar's exact two-sided ``p``.
    """
    n = len(first)
    if n != len(second) or not n:
        raise ValueError(f"paired results need equally many samples, at least one: {n} and {len(second)}")
    gained = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    lost = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    difference = (gained - lost) / n
    spread = Z95 * math.sqrt(max(0.0, gained + lost - (gained - lost) ** 2 / n)) / n
    changed = gained + lost
    tail = sum(math.comb(changed, i) for i in range(min(gained, lost) + 1)) / 2**changed
    return {"difference": difference, "low": difference - spread, "high": difference + spread, "p": min(1.0, 2 * tail)}


def resampled(count: int) -> Floats:
    """How often each sample is drawn, (``RESAMPLES``, count), the same whenever it is asked."""
    drawn = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn.astype(np.float64)


def share_right(right: Any, weights: npt.NDArray[np.floating[Any]]) -> Floats | None:
    """Of samples that are counted ``weights`` (B, samples) times the share that is right, (B,); NaN of none.

    right: a "0" or "1" for each sample; None for what is none.
    """
    if not isinstance(right, str) or len(right) != weights.shape[1]:
        return None
    hits = np.frombuffer(right.encode(), np.uint8) == ord("1")
    with np.errstate(invalid="ignore"):
        return np.asarray(weights @ hits / weights.sum(1))


class Bootstrap:
    """Values of resamples around the one of the samples themselves, bias-corrected (Efron, 1987); NaN is none.

    Resamples lack rare classes, which shifts what they give as a whole: without the correction an interval can lie
    beside the very value that it belongs to.
    """

    def __init__(self, value: float, resampled: Floats) -> None:
        self.values = np.sort(resampled[~np.isnan(resampled)])
        self.bias = self._place(value)

    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        shares = [NORMAL.cdf(2 * self.bias + z) for z in (-Z95, Z95)]
        low, high = np.quantile(self.values, shares)
        return float(low), float(high)

    def chance(self, value: float) -> float:
        """Two-sided p of a true ``value``: 0.05 where it is at an end of the interval.

        Beyond every resample its place is not known, so nothing is corrected: it is at most what they can tell.
        """
        if not self.values[0] <= value <= self.values[-1]:
            return 1 / len(self.values)
        return 2 * NORMAL.cdf(-abs(self._place(value) - 2 * self.bias))

    def _place(self, value: float) -> float:
        """Where a value is among the resampled ones, as a normal deviate."""
        below, above = np.searchsorted(self.values, [value - 1e-12, value + 1e-12])
        share = (below + above) / 2 / len(self.values)
        edge = 0.5 / len(self.values)
        return NORMAL.inv_cdf(float(min(max(share, edge), 1 - edge)))


def interval(count: int, score: Callable[[Floats | None], Floats]) -> tuple[float, float]:
    """95 % interval of what ``score`` gives, from a bootstrap over ``count`` images.

    score: (B,) for images counted as (B, count) says, (1,) for every one once.
    """
    return Bootstrap(float(score(None)[0]), score(resampled(count))).interval()


def paired_scores(
    count: int, first: Callable[[Floats | None], Floats], second: Callable[[Floats | None], Floats]
) -> dict[str, float]:
    """Compare two such scores over the same images, each resample of which counts for both.

    Returns ``difference`` (first minus second), its 95 % interval ``low``, ``high``, and the two-sided ``p`` of no
    difference.
    """
    weights, difference = resampled(count), float(first(None)[0] - second(None)[0])
    drawn = Bootstrap(difference, first(weights) - second(weights))
    low, high = drawn.interval()
    return {"difference": difference, "low": low, "high": high, "p": drawn.chance(0.0)}


def packed(values: Any) -> str:
    """Lists of numbers as printable text, for a record."""
    data = json.dumps(values, separators=(",", ":"))
    return base64.b85encode(zlib.compress(data.encode(), 9)).decode()


def unpacked(text: str, form: Any) -> Any:
    """The inverse of ``packed``, checked against a type. Raises ValueError."""
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(base64.b85decode(text), MOST_TEXT)
        if not inflater.eof:
            raise ValueError(f"they are cut short, or of more than {MOST_TEXT:,} bytes")
        return msgspec.json.decode(found, type=form)
    except (msgspec.MsgspecError, zlib.error) as error:
        raise ValueError(str(error)) from error
