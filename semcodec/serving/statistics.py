"""What a link's answers amount to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semcodec.serving.link import Answer

OUTCOMES = ("answered", "local", "late", "failed", "skipped")
PERCENTILES = (50, 95, 99)
TIMES = ("total", "device", "link", "queue", "server")
LAST = 100_000
"""Answers whose times are kept, so that a camera may run for ever."""


class Statistics:
    """Takes answers one by one. dropped: samples that a camera gave and nobody took, to be set."""

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.bytes_total = 0
        self.dropped = 0
        self._ms: dict[str, list[float]] = {name: [] for name in TIMES}
        self._began: float | None = None
        self._ended = 0.0

    def add(self, answer: Answer) -> None:
        """One more."""
        now = time.perf_counter()
        if self._began is None:
            self._began = now - answer.total_ms / 1000
        self._ended = now
        self.outcomes[answer.outcome] += 1
        self.bytes_total += answer.encoded.bytes_total
        if answer.outcome == "answered":
            for name, values in self._ms.items():
                values.append(answer.total_ms if name == "total" else answer.ms[name])
                if len(values) > LAST:
                    del values[: LAST // 2]

    def summary(self) -> dict[str, Any]:
        """samples, how many by outcome, ``sent`` to the server, dropped, ``bytes_total`` and ``bits`` of packets a
        sample, seconds, fps, and ms: by part of the time, percentiles over what the server answered."""
        samples = sum(self.outcomes.values())
        seconds = 0.0 if self._began is None else self._ended - self._began
        return {
            "samples": samples,
            "sent": samples - self.outcomes["local"] - self.outcomes["skipped"],
            **self.outcomes,
            "dropped": self.dropped,
            "bytes_total": self.bytes_total / samples if samples else None,
            "bits": 8 * self.bytes_total / samples if samples else None,
            "seconds": seconds,
            "fps": samples / seconds if seconds else None,
            "ms": {name: _percentiles(values) for name, values in self._ms.items()},
        }


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """By "p50" and others, the smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return {
        f"p{p}": ordered[max(0, -(-p * len(ordered) // 100) - 1)] if ordered else None  # rounded up
        for p in PERCENTILES
    }
