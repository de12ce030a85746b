"""The best operating point for a link and a deadline: STAE eq. (5), and how it fares while the link varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.errors import UsageError
from semcodec.planning.latency import Energy, OperatingPoint, Profile, paying
from semcodec.planning.link import Link

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """A point over a link: its coder used or not, its expected time by stage, and whether it may be chosen.

    why: what it misses, in words; empty where it fits.
    """

    point: OperatingPoint
    coded: bool
    ms: float
    stages_ms: dict[str, float]
    energy_mj: float | None
    why: str

    @property
    def fits(self) -> bool:
        """Whether it meets deadline and budget."""
        return not self.why

    def document(self) -> dict[str, Any]:
        """For JSON."""
        p = self.point
        return {
            "label": p.label,
            "spec": p.spec or None,
            "knobs": dict(p.knobs),
            "accuracy": p.accuracy,
            "accuracy_interval": list(p.interval) if p.interval else None,
            "bytes": p.bytes,
            "entropy_coded": self.coded,
            "sent_ratio": p.sent,
            "ms": finite(self.ms),
            "stages_ms": {stage: finite(ms) for stage, ms in self.stages_ms.items()},
            "energy_mj": self.energy_mj,
            "macs_device": p.macs,
            "device_share": p.share,
            "fits": self.fits,
            "why": self.why or None,
        }


@dataclass(frozen=True)
class Plan:
    """rows: every point that can be timed, the best first. unknown: those that cannot, for what they need.

    best, runner_up: the two most accurate that fit; None where fewer do. fastest: what misses by least where
    nothing fits.
    """

    rows: tuple[Row, ...]
    local: Row | None
    full: Row | None
    unknown: tuple[OperatingPoint, ...]

    @property
    def best(self) -> Row | None:
        """The most accurate point that fits, or None."""
        return self.rows[0] if self.rows and self.rows[0].fits else None

    @property
    def best_at_home(self) -> bool:
        """Whether nothing should be sent: local computing fits, and is more accurate than the best or equal and faster.

        Never where its accuracy is not known.
        """
        local, best = self.local, self.best
        if local is None or not local.fits or local.point.accuracy is None:
            return False
        return best is None or (_accuracy(local.point), -local.ms) > (_accuracy(best.point), -best.ms)

    @property
    def runner_up(self) -> Row | None:
        """The next one that fits, or None."""
        return self.rows[1] if len(self.rows) > 1 and self.rows[1].fits else None

    @property
    def fastest(self) -> Row:
        """The point of the shortest completion time."""
        return min(self.rows, key=lambda row: row.ms)


def finite(value: float) -> float | None:
    """JSON has no infinity: None stands for never."""
    return float(value) if np.isfinite(value) else None


def check_deadline(deadline_ms: float) -> None:
    """Raise UsageError for what is no time in ms."""
    if not (np.isfinite(deadline_ms) and deadline_ms > 0):
        raise UsageError(f"a deadline is a number of ms above 0, not {deadline_ms:g}")


def check_share(share: float) -> None:
    """Raise UsageError for what is no part of a whole."""
    if not 0 <= share <= 1:
        raise UsageError(f"a device's share is of what both ends compute, from 0 to 1, not {share:g}")


def plan(
    profile: Profile,
    link: Link,
    deadline_ms: float,
    energy_mj: float | None = None,
    max_share: float | None = None,
) -> Plan:
    """STAE eq. (5): the most accurate point whose completion time is within the deadline.

    Among equally accurate ones the faster is the better; a point of unknown accuracy is never the best of any that
    has one. energy_mj: also within this energy of the device. max_share: also with the device computing no more than
    this part of what both ends compute. Raises UsageError where no point can be timed, or where energy or share
    are limited and not known.
    """
    check_deadline(deadline_ms)
    if energy_mj is not None and profile.energy is None:
        raise UsageError(
            f"{profile.name} does not say what a multiply-accumulate and a bit cost: give --joules-per-mac and "
            "--joules-per-bit"
        )
    if energy_mj is not None and all(point.macs is None for point in profile.points):
        raise UsageError(f"{profile.name} does not say how much the device computes; records do")
    if max_share is not None:
        check_share(max_share)
        if all(point.share is None for point in profile.points):
            raise UsageError(f"{profile.name} does not say what part of the whole the device computes; records do")
    energy = profile.energy
    known = timed(profile)

    def row(point: OperatingPoint) -> Row:
        return _row(point, link, deadline_ms, energy, energy_mj, max_share)

    rows = sorted((row(point) for point in known), key=lambda r: (not r.fits, -_accuracy(r.point), r.ms))
    local, full = (row(p) if p and not p.needs else None for p in (profile.local, profile.full))
    return Plan(tuple(rows), local, full, tuple(p for p in profile.points if p.needs))


def timed(profile: Profile) -> list[OperatingPoint]:
    """The points that lack nothing. Raises UsageError where there are none, naming what they lack."""
    known = [point for point in profile.points if not point.needs]
    if not known:
        needs = " ".join(f"--assume {name}=MS" for name in profile.points[0].needs)
        raise UsageError(f"{profile.name} lacks times that its source does not print: give {needs}")
    return known


def _row(
    point: OperatingPoint,
    link: Link,
    deadline_ms: float,
    energy: Energy | None,
    limit_mj: float | None,
    max_share: float | None,
) -> Row:
    used = paying(point, link)
    ms = float(used.ms(link))
    spent = energy.mj(used) if energy and used.macs is not None else None
    misses = []
    if ms > deadline_ms:
        misses.append(f"{ms - deadline_ms:.1f} ms too slow" if np.isfinite(ms) else "never arrives")
    if limit_mj is not None and spent is None:
        misses.append("its energy is not known")
    elif limit_mj is not None and spent is not None and spent > limit_mj:
        misses.append(f"{spent - limit_mj:.3g} mJ too much")
    if max_share is not None and used.share is None:
        misses.append("the device's share is not known")
    elif max_share is not None and used.share is not None and used.share > max_share:
        misses.append(f"the device computes {used.share:.3g} of the whole")
    return Row(used, used.bytes != point.bytes, ms, used.stages_ms(link), spent, ", ".join(misses))


def _accuracy(point: OperatingPoint) -> float:
    return -1.0 if point.accuracy is None else point.accuracy


@dataclass(frozen=True)
class Replay:
    """How one way of choosing fared: ``hits`` in time of ``samples``; times are those of each sample.

    accuracy: of those in time; useful: of all, a late answer being a wrong one. share: by point, how often chosen.
    """

    label: str
    samples: int
    hits: float
    accuracy: float | None
    useful: float
    median_ms: float
    p95_ms: float
    share: dict[str, float]

    def document(self) -> dict[str, Any]:
        return {**self.__dict__, "median_ms": finite(self.median_ms), "p95_ms": finite(self.p95_ms)}


def check_headroom(headroom: float) -> None:
    """Raise UsageError for what is no share of a deadline."""
    if not 0 <= headroom < 1:
        raise UsageError(f"headroom is a share of the deadline, from 0 to below 1, not {headroom:g}")


def replay(
    profile: Profile,
    link: Link,
    deadline_ms: float,
    period_ms: float | None = None,
    seconds: float | None = None,
    headroom: float = 0.0,
) -> list[Replay]:
    """One sample every period, over a link that varies: the adaptive choice first, then each fixed point.

    The choice knows the rate at the moment when a sample is there and nothing of the future; where nothing fits it
    takes what is fastest. headroom: share of the deadline that it leaves free for a rate that falls. Samples do not
    share the link, so a period is at least the deadline (and that if left out): what is late is given up by then.
    seconds: how long; to the last line of the trace if left out.
    """
    check_deadline(deadline_ms)
    check_headroom(headroom)
    period_ms = deadline_ms if period_ms is None else period_ms
    if not period_ms >= deadline_ms:
        raise UsageError(f"a period of {period_ms:g} ms is shorter than the deadline: samples would share the link")
    end_s = max(link.end_s, period_ms / 1e3) if seconds is None else seconds
    if end_s * 1e3 / period_ms > 1e6:
        raise UsageError(f"{end_s:g} s are more than a million samples; take a longer period or fewer seconds")
    starts = np.arange(0, end_s, period_ms / 1e3)
    points = timed(profile)
    estimated, really = _times(points, link, starts)
    accuracy = np.array([_accuracy(point) for point in points])
    labels = [point.label for point in points]
    chosen = _choices(estimated, accuracy, deadline_ms * (1 - headroom))
    fixed = [np.full(len(starts), i) for i in range(len(points))]
    return [
        _fared(label, rows, really, accuracy, labels, deadline_ms)
        for label, rows in zip(["adaptive", *labels], [chosen, *fixed], strict=True)
    ]


def choices(
    points: Sequence[OperatingPoint], link: Link, starts_s: Float64, deadline_ms: float
) -> npt.NDArray[np.intp]:
    """For samples at these times, which point the adaptive choice takes; the fastest where none fits."""
    estimated, _ = _times(points, link, starts_s)
    return _choices(estimated, np.array([_accuracy(point) for point in points]), deadline_ms)


def _choices(estimated: Float64, accuracy: Float64, deadline_ms: float) -> npt.NDArray[np.intp]:
    """(points, samples) times to (samples,) indices."""
    fits = estimated <= deadline_ms
    worth = np.where(fits, accuracy[:, None], -np.inf)
    among = worth == worth.max(0)  # all of them where none fits
    return np.asarray(np.where(among, estimated, np.inf).argmin(0))


def _times(points: Sequence[OperatingPoint], link: Link, starts_s: Float64) -> tuple[Float64, Float64]:
    """(points, samples) ms: expected at the rate of the moment, and what they really take.

    Whether to use an entropy coder is decided by the former.
    """
    estimated, really = [], []
    for point in points:
        variants = list(point.variants())
        first = np.stack([_estimate(variant, link, starts_s) for variant in variants])
        later = np.stack([np.broadcast_to(variant.ms(link, starts_s), starts_s.shape) for variant in variants])
        used = first.argmin(0)[None]
        estimated.append(np.take_along_axis(first, used, 0)[0])
        really.append(np.take_along_axis(later, used, 0)[0])
    return np.stack(estimated), np.stack(really)


def _estimate(point: OperatingPoint, link: Link, starts_s: Float64) -> Float64:
    rates = link.rate_at(starts_s)
    return np.broadcast_to(point.over(lambda size: link.at_rate_ms(size, rates)), starts_s.shape)


def _fared(
    label: str,
    rows: npt.NDArray[np.intp],
    really: Float64,
    accuracy: Float64,
    labels: Sequence[str],
    deadline_ms: float,
) -> Replay:
    ms = really[rows, np.arange(len(rows))]
    hit = ms <= deadline_ms
    right = np.maximum(accuracy[rows], 0) * hit
    counts = np.bincount(rows, minlength=len(labels))
    return Replay(
        label=label,
        samples=len(rows),
        hits=float(hit.mean()),
        accuracy=float(right.sum() / hit.sum()) if hit.any() else None,
        useful=float(right.mean()),
        median_ms=float(np.quantile(ms, 0.5, method="inverted_cdf")),
        p95_ms=float(np.quantile(ms, 0.95, method="inverted_cdf")),
        share={labels[i]: float(counts[i] / len(rows)) for i in np.argsort(-counts, kind="stable") if counts[i]},
    )
