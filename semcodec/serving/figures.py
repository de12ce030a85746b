"""What one stream did in the last seconds, second by second."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from semcodec.serving.messages import Answer, Late, Outcome

WINDOW_S = 10
"""Seconds that figures are of."""
STAGES = ("queue", "decode", "recover", "tail")


@dataclass(slots=True)
class _Second:
    number: int
    frames: int = 0
    octets: int = 0
    answered: int = 0
    late: int = 0
    failed: int = 0
    microseconds: list[int] = field(default_factory=lambda: [0, 0, 0, 0])


class Figures:
    """Counts a stream's records and outcomes. Times are seconds of one clock, which never goes back."""

    def __init__(self, now: float) -> None:
        self.began = now
        self._seconds: deque[_Second] = deque(maxlen=WINDOW_S + 1)

    def add_record(self, now: float, octets: int, frames: int = 1) -> None:
        """One more came, of so many bytes. frames: 0 for a second round."""
        second = self._at(now)
        second.frames += frames
        second.octets += octets

    def add_outcome(self, now: float, outcome: Outcome) -> None:
        """One ended."""
        second = self._at(now)
        if isinstance(outcome, Answer):
            second.answered += 1
            second.microseconds = [a + b for a, b in zip(second.microseconds, outcome.microseconds, strict=True)]
        elif isinstance(outcome, Late):
            second.late += 1
        else:
            second.failed += 1

    def _at(self, now: float) -> _Second:
        if not self._seconds or self._seconds[-1].number != int(now):
            self._seconds.append(_Second(int(now)))
        return self._seconds[-1]

    def summary(self, now: float) -> dict[str, Any]:
        """Of the last ``WINDOW_S`` whole seconds: fps, ``bits`` a frame, ``bits_per_s``, the shares ``late`` and
        ``failed`` of what ended, and ``ms`` of an answer by stage; None for what nothing tells."""
        whole = [s for s in self._seconds if now - WINDOW_S - 1 < s.number < int(now)]
        lasted = min(float(WINDOW_S), int(now) - self.began)
        if lasted < 1:  # its first second counts as it is
            whole, lasted = [s for s in self._seconds if s.number >= now - 1], max(now - self.began, 0.25)
        frames, octets = sum(s.frames for s in whole), sum(s.octets for s in whole)
        answered, late, failed = (sum(getattr(s, kind) for s in whole) for kind in ("answered", "late", "failed"))
        ended = answered + late + failed
        spent = [sum(s.microseconds[stage] for s in whole) for stage in range(len(STAGES))]
        return {
            "fps": frames / lasted,
            "bits": 8 * octets / frames if frames else None,
            "bits_per_s": 8 * octets / lasted,
            "late": late / ended if ended else None,
            "failed": failed / ended if ended else None,
            "ms": {name: us / 1000 / answered if answered else None for name, us in zip(STAGES, spent, strict=True)},
        }
