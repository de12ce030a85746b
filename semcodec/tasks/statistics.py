"""Accuracy with honest intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

METRICS = {"top1": "top-1 accuracy", "map50": "mAP at IoU 0.5"}
"""The accuracies that a record may have, by key: its first of these is its own, ``metric_of``."""
HEADS = {"top1": "top-1 %", "map50": "mAP50 %"}
"""The same above a column."""

Z95 = 1.959963984540054


def metric_of(record: Mapping[str, Any]) -> str | None:
    """The key of a record's accuracy; its 95 % interval is under that with ``_interval``. None where it has none."""
    return next((name for name in METRICS if record.get(name) is not None), None)


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


def compared(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, float]:
    """``paired`` of two records of ``eval`` over the same samples, of classes or of boxes, whichever they are.

    For boxes differences are of ``map50``, and interval and p from a bootstrap over images
    (``average_precision.paired``). Raises ValueError for records of other data, or of another metric.
    """
    if first.get("data_digest") != second.get("data_digest") or metric_of(first) != metric_of(second):
        raise ValueError("paired results need records of the same samples, measured alike")
    if metric_of(first) != "map50":
        return paired(*([digit == "1" for digit in record["correct"]] for record in (first, second)))
    from semcodec.tasks import average_precision

    return average_precision.paired(*(average_precision.Matches.read(r["matches"]) for r in (first, second)))
