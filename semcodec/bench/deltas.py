"""Bjøntegaard deltas (VCEG-M33, 2001) between curves of accuracy over bytes, in place of PSNR over bit rate."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semcodec.bench.results import MeasuredPoint, Results, names, pareto
from semcodec.errors import SemcodecError, UsageError
from semcodec.tasks.table import scores_of
from semcodec.tasks.weighted import tells

BD_POINTS = 4
"""Fewest points of a curve that a delta is made of, as is usual in video coding."""
RESAMPLES = 200
"""Of the samples, for an interval."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class Delta:
    """A curve against the anchor. ``rate``: mean change of bytes in percent at equal accuracy; ``accuracy``: mean
    change in points, of percent or whatever accuracy is shown in, at equal bytes; None where ``note`` says why.
    ``overlap``: share of the accuracies of both curves together that both of them reach. rate_interval,
    accuracy_interval: 95 %, by paired resamples of the samples; None where records do not say which samples were right,
    or where too many resamples have no figure.
    """

    curve: str
    points: int
    rate: float | None
    accuracy: float | None
    overlap: float
    note: str = ""
    rate_interval: Interval | None = None
    accuracy_interval: Interval | None = None


def against(results: Results, anchor: str) -> dict[tuple[str, str, str], list[Delta]]:
    """By key of every group that has the curve ``anchor``, each other curve of it against that.

    PCHIP over log10 of the bytes. A curve stands for its own Pareto front, since the deltas need accuracy to rise
    with bytes. Raises UsageError where no group has the anchor with at least ``BD_POINTS`` points on its front,
    SemcodecError without the ``bjontegaard`` package.
    """
    having = {group.key: group.curves for group in results.groups if anchor in group.curves}
    if not having:
        raise UsageError(f"there is no curve {anchor!r}; there are {', '.join(names(results.groups))}")
    bases = {key: _front(curves[anchor]) for key, curves in having.items()}
    most = max(map(len, bases.values()))
    if most < BD_POINTS:
        raise UsageError(f"--bd {anchor}: {_too_few(most)}; measure more, or take another curve as the anchor")
    return {
        key: [
            _with_intervals(_delta(base, name, _front(points)), having[key][anchor], points)
            for name, points in having[key].items()
            if name != anchor
        ]
        for key, base in bases.items()
        if len(base) >= BD_POINTS
    }


def _front(points: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
    return pareto(point for point in points if point.bytes > 0)  # what sends nothing has no logarithm


def _too_few(count: int) -> str:
    return f"too few points on its Pareto front, {count} where the method needs {BD_POINTS}"


def _delta(base: Sequence[MeasuredPoint], name: str, test: Sequence[MeasuredPoint]) -> Delta:
    if len(test) < BD_POINTS:
        return Delta(name, len(test), None, None, 0.0, _too_few(len(test)))
    try:
        import bjontegaard
    except ImportError:
        raise SemcodecError("Bjøntegaard deltas need bjontegaard: pip install 'semcodec[report]'") from None
    rates, accuracies = zip(*(([p.bytes for p in c], [p.shown[0] for p in c]) for c in (base, test)), strict=True)
    shared = [_overlap(*accuracies), _overlap(*([math.log10(r) for r in rate] for rate in rates))]
    curves = rates[0], accuracies[0], rates[1], accuracies[1]
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    rate = float(bjontegaard.bd_rate(*curves, **options)) if shared[0] else None
    accuracy = float(bjontegaard.bd_psnr(*curves, **options)) if shared[1] else None
    missing = [what for what, share in zip(("accuracy", "bytes"), shared, strict=True) if not share]
    note = f"the ranges of {' and of '.join(missing)} do not overlap" if missing else ""
    return Delta(name, len(test), rate, accuracy, shared[0], note)


def _with_intervals(delta: Delta, base: Sequence[MeasuredPoint], test: Sequence[MeasuredPoint]) -> Delta:
    """The same with its intervals: in each resample every curve has its own accuracies, and so its own front."""
    import numpy as np

    from semcodec.bench.equal import draws

    members = [p.record for curve in (base, test) for p in curve]
    counts = {int(record.get("samples", 0)) for record in members}
    told = len(counts) == 1 and counts != {0} and all(map(tells, members))
    if (delta.rate is None and delta.accuracy is None) or not told:
        return delta
    samples = counts.pop()
    weights = np.stack(list(draws(samples, RESAMPLES)))
    reached = [[scores_of(p.record, weights) for p in curve] for curve in (base, test)]
    if any(scores is None for scores in itertools.chain(*reached)):
        return delta
    rates, accuracies = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples in which ranges hardly overlap
        for row in range(RESAMPLES):
            drawn = [
                _front([replace(p, accuracy=float(s[row])) for p, s in zip(curve, own, strict=True) if s is not None])
                for curve, own in zip((base, test), reached, strict=True)
            ]
            if len(drawn[0]) < BD_POINTS:
                continue
            found = _delta(drawn[0], delta.curve, drawn[1])
            rates += [found.rate] if found.rate is not None else []
            accuracies += [found.accuracy] if found.accuracy is not None else []
    return replace(delta, rate_interval=_interval(rates), accuracy_interval=_interval(accuracies))


def _interval(found: Sequence[float]) -> Interval | None:
    """The middle 95 %, of no fewer than nine tenths of the resamples."""
    import numpy as np

    if len(found) < 0.9 * RESAMPLES:
        return None
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Share of the range of both together that both cover."""
    shared = min(max(first), max(second)) - max(min(first), min(second))
    return max(0.0, shared) / (max(*first, *second) - min(*first, *second))
