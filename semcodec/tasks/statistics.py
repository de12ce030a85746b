"""Accuracy with honest intervals, and paired comparisons; knows no task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Z95 = 1.959963984540054


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
