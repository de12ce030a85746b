"""What a group's points say in a sentence: how many bytes one curve needs beside another, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semcodec.bench.equal import Float64, Method, log_bytes
from semcodec.bench.results import Group
from semcodec.tasks.base import Metric, Record
from semcodec.tasks.table import scores_of
from semcodec.tasks.weighted import tells

STEPS = 21
"""Accuracies, evenly over those that two curves share, at which their bytes are compared."""


@dataclass(frozen=True)
class Claim:
    """The bytes of ``curve`` beside those of ``anchor``, as a mean ratio over the accuracies that both reach.

    ratio: below 1 where the curve needs fewer. low, high: its 95 % interval by 1,000 paired resamples of the samples.
    reached: the least and the greatest of these accuracies, as records have them.
    """

    curve: str
    anchor: str
    ratio: float
    low: float
    high: float
    reached: tuple[float, float]
    samples: int
    metric: Metric

    @property
    def certain(self) -> bool:
        """Whether the interval lies on one side of equal."""
        return self.low > 1 or self.high < 1

    def __str__(self) -> str:
        least, most = (f"{self.metric.shown(value):.1f}" for value in self.reached)
        unit = f"{self.metric.unit} {self.metric.label}"
        where = f"at {least} {unit}" if least == most else f"at {least} to {most} {unit}"
        if not self.certain:
            bounds = f"between {_change(self.low)} and {_change(self.high)}"
            return f"{self.samples:,} samples cannot tell {self.curve} from {self.anchor}: {bounds} {where}"
        value, ends = _percent(self.ratio), sorted((_percent(self.low), _percent(self.high)))
        word = "fewer" if self.ratio < 1 else "more"
        bounds = f"{_figure(ends[0])} to {_figure(ends[1])}"
        return f"{self.curve} needs {_figure(value)} % ({bounds}) {word} bytes than {self.anchor} {where}"


def _percent(ratio: float) -> float:
    return 100 * abs(1 - ratio)


def _figure(percent: float) -> str:
    """A tenth of a percent where that is what matters, as next to 100."""
    return f"{percent:.1f}" if 90 < percent < 100 else f"{percent:,.0f}"


def _change(ratio: float) -> str:
    return f"{_figure(_percent(ratio))} % {'fewer' if ratio < 1 else 'more'} bytes"


def claims(group: Group, anchor: str | None = None) -> list[Claim]:
    """Every curve beside the anchor, the one that needs the fewest bytes first; none where nothing can be compared.

    A curve takes part if its records say which samples were right, or are means of tasks, and sends something. Without
    an anchor it is the best curve of which the device computes nothing, as of pictures and video; else the second best
    of all.
    """
    told = _told(group)
    if len(told) < 2:
        return []
    methods = {name: Method.of(records) for name, records in told.items()}
    if anchor is None:
        anchor = _usual_anchor(group, methods)
    if anchor not in methods:
        return []
    base, found = methods[anchor], []
    for name, method in methods.items():
        if name == anchor or method.samples != base.samples:
            continue
        rows = zip(method.reached.T, base.reached.T, strict=True)
        (ratio, reached), *drawn = (_ratio((method.bytes, mine), (base.bytes, theirs)) for mine, theirs in rows)
        low, high = np.quantile([one for one, _ in drawn], (0.025, 0.975))
        found.append(Claim(name, anchor, ratio, float(low), float(high), reached, base.samples, group.measure))
    return sorted(found, key=lambda claim: claim.ratio)


def headline(found: Sequence[Claim]) -> str:
    """The sentence of the curve that needs the fewest bytes; empty for none."""
    return str(found[0]) if found else ""


def _told(group: Group) -> dict[str, list[Record]]:
    """Records that can be resampled, by curve."""
    found, once = {}, np.ones((1, group.samples))
    for name, points in group.curves.items():
        records = [point.record for point in points if point.bytes > 0 and tells(point.record)]
        if records and all(scores_of(record, once) is not None for record in records):
            found[name] = records
    return found


def _usual_anchor(group: Group, methods: dict[str, Method]) -> str:
    """The best of the curves whose device computes nothing, else the second best of all; of two at least."""
    top = max(group.points, key=lambda point: point.accuracy)

    def cost(name: str) -> tuple[float, float]:
        """Accuracy first where samples tell a curve from the best, then the bytes at which it is as good."""
        method = methods[name]
        goal = min(float(method.reached[:, 0].max()), top.low)
        return -goal, float(method.log_bytes(np.array([goal]))[0])

    ranked = sorted(methods, key=cost)
    idle = [name for name in ranked if all(point.share == 0 for point in group.curves[name])]
    others = [name for name in ranked if name not in idle]
    return idle[0] if idle and others else ranked[1]


Curve = tuple[Float64, Float64]
"""Bytes in rising order and accuracies of points."""


def _ratio(own: Curve, base: Curve) -> tuple[float, tuple[float, float]]:
    """Mean ratio of bytes over the accuracies that both reach, and which these are."""
    high = min(float(own[1].max()), float(base[1].max()))
    low = min(high, max(float(own[1].min()), float(base[1].min())))
    wanted = np.linspace(low, high, STEPS)
    logs = [log_bytes(*curve, wanted) for curve in (own, base)]
    return float(np.exp((logs[0] - logs[1]).mean())), (low, high)
