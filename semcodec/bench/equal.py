"""Bytes at equal accuracy: one method against others at whole accuracies, with a paired bootstrap over the samples.

A method stands for the points that it was measured at. Their monotone hull is the points that no other of the method
beats, joined by straight lines in the logarithm of the bytes. What a resample of the samples does to a point's score is
told by its task; bytes stay at their mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.errors import UsageError
from semcodec.tasks.table import metric_of, scores_of

Float64 = npt.NDArray[np.float64]
RESAMPLES = 1000


def draws(samples: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Float64]:
    """Resamples of the samples: how often each of them is drawn, float64 (samples,), the same for one seed."""
    draw = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(draw.integers(0, samples, samples), minlength=samples).astype(np.float64)


def log_bytes(size: Float64, reached: Float64, accuracies: Float64) -> Float64:
    """Natural logarithm of the bytes at each of several accuracies (A,), infinite where no point gets there.

    size: bytes of points in rising order; reached: their accuracies. Below its least accurate point a method takes
    that point's bytes: it gives no less for no more.
    """
    best = np.maximum.accumulate(reached)
    front = np.flatnonzero(np.concatenate([[True], best[1:] > best[:-1]]))
    found = np.interp(accuracies, best[front], np.log(size)[front])
    return np.where(accuracies > best[-1] + 1e-12, np.inf, found)


@dataclass(frozen=True)
class Method:
    """Points of one method. bytes: float64 (P,), above 0. reached: float64 (P, 1 + RESAMPLES), the score of all
    ``samples``, and of each of their ``draws``.
    """

    bytes: Float64
    reached: Float64
    samples: int

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]]) -> Method:
        """Of records of ``eval`` for the same samples and task, in any order. Raises UsageError for others, or none.

        A record that sends nothing has no logarithm and is left out.
        """
        sending = sorted(
            (record for record in records if record["bytes_total"] > 0), key=lambda record: float(record["bytes_total"])
        )
        if len({(r.get("data_digest"), r["samples"], metric_of(r)) for r in sending}) != 1:
            raise UsageError("points at equal accuracy are of one set of samples and of one task, and there are some")
        samples = sending[0]["samples"]
        weights = np.stack([np.ones(samples), *draws(samples)])
        reached = [scores for record in sending if (scores := scores_of(record, weights)) is not None]
        if len(reached) < len(sending):
            raise UsageError("a record that does not say how each sample was answered cannot be resampled")
        return cls(np.array([record["bytes_total"] for record in sending], np.float64), np.stack(reached), samples)

    def log_bytes(self, accuracies: Float64, resample: int | None = None) -> Float64:
        """``log_bytes`` of its points. resample: by number, from 0; of all samples once where left out."""
        return log_bytes(self.bytes, self.reached[:, 0 if resample is None else 1 + resample], accuracies)


@dataclass(frozen=True)
class Equal:
    """One accuracy. bytes: the method's, or None where it does not get there. rivals: by name, theirs.

    best: the rival with the fewest. ratio: the method's bytes over the best rival's, with its 95 % interval from low to
    high: of resamples in which the method does not get there it is infinite, and 0 where the rivals do not.
    """

    accuracy: float
    bytes: float | None
    rivals: Mapping[str, float | None]
    best: str | None
    ratio: float | None
    low: float | None
    high: float | None


def at_equal_accuracy(method: Method, rivals: Mapping[str, Method], accuracies: Sequence[float]) -> list[Equal]:
    """The method beside rivals on the same samples at each accuracy, a fraction.

    Every resample draws as many samples as there are, the same for all, and takes the rival that is best in it.
    Raises UsageError for rivals of other samples.
    """
    if any(rival.samples != method.samples for rival in rivals.values()):
        raise UsageError("methods compare on the same samples alone")
    wanted = np.asarray(accuracies, np.float64)
    own = method.log_bytes(wanted)
    theirs = {name: rival.log_bytes(wanted) for name, rival in rivals.items()}
    ratios = np.empty((RESAMPLES, len(wanted)))
    for i, row in enumerate(ratios):
        row[:] = _ratio(method.log_bytes(wanted, i), [rival.log_bytes(wanted, i) for rival in rivals.values()])
    low, high = np.quantile(ratios, (0.025, 0.975), axis=0, method="inverted_cdf")
    found = _ratio(own, list(theirs.values()))
    return [
        Equal(
            float(accuracy),
            _bytes(own[i]),
            {name: _bytes(logs[i]) for name, logs in theirs.items()},
            _cheapest({name: float(logs[i]) for name, logs in theirs.items()}),
            *(float(value[i]) if np.isfinite(value[i]) else None for value in (found, low, high)),
        )
        for i, accuracy in enumerate(wanted)
    ]  # fmt: skip


def _cheapest(logs: Mapping[str, float]) -> str | None:
    return min((name for name, log in logs.items() if np.isfinite(log)), key=lambda name: logs[name], default=None)


def _ratio(own: Float64, rivals: Sequence[Float64]) -> Float64:
    best = np.min(rivals, axis=0) if rivals else np.full_like(own, np.inf)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(np.isfinite(own), np.exp(own - best), np.inf))


def _bytes(log: float) -> float | None:
    return float(np.exp(log)) if np.isfinite(log) else None
