"""Seconds by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Seconds by stage, in the order the stages first ran.

    synchronise: waits for an accelerator, which computes while the program goes on: called before and after every
    stage, so that each is told its own time. ``End.clock`` makes one for where an end runs.
    """

    def __init__(self, synchronise: Callable[[], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._synchronise = synchronise

    def add(self, stage: str, seconds: float) -> None:
        """Seconds that a stage took beside those it has."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Adds the seconds that what is done inside takes."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.add(stage, time.perf_counter() - start)

    def _wait(self) -> None:
        if self._synchronise is not None:
            self._synchronise()
