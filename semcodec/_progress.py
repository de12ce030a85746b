"""Telling how far long work has come, and stopping it where nothing is lost."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Progress:
    """One line on stderr, rewritten; nothing where stderr is no terminal.

    shown: False of a process beside others, of which one alone shows it.
    """

    def __init__(self, shown: bool = True) -> None:
        self.shown = shown and sys.stderr.isatty()
        self.began = time.monotonic()

    def show(self, text: str) -> None:
        """The line, in the place of what it was."""
        if self.shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def share(self, text: str, done: float) -> None:
        """The line, with how much of the work is done, 0 to 1, and how long the rest will take at that pace."""
        left = (time.monotonic() - self.began) * (1 / max(done, 1e-9) - 1)
        self.show(f"{text}  {100 * done:.0f} %, {left / 60:.1f} min left")

    def count(self, text: str, done: int, total: int) -> None:
        """The line, with how many are done; it is gone once all are."""
        self.show(f"{text}  {done}/{total}")
        if done >= total:
            self.close()

    def note(self, text: str) -> None:
        """A line of its own where stderr is no terminal, as in a log: of each large part of the work that is done."""
        if not self.shown:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        self.show("")


class Terminated(KeyboardInterrupt):
    """What SIGTERM raises within ``terminable``: what is left on the way out is cleaned up, as after Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise ``Terminated`` in the main thread; a second one does not disturb what the first one ends.

    Where SIGTERM is ignored, or someone else handles it, that stays so.
    """
    main = threading.current_thread() is threading.main_thread()
    ours = main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


class Interrupt:
    """Ctrl-C as a question that the work answers at a good moment: ``asked`` becomes true. A second one is not asked.

    SIGTERM within ``terminable`` is asked alike; ``reason`` is what to raise. Outside the main thread, which signals do
    not reach, it is never asked.
    """

    def __init__(self) -> None:
        self.asked = False
        self.reason: type[KeyboardInterrupt] = KeyboardInterrupt
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._ask)
            if signal.getsignal(signal.SIGTERM) == _terminate:
                self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGTERM:
            return  # what the first one asked for is under way
        if self.asked:
            raise self.reason
        self.asked = True
        self.reason = Terminated if number == signal.SIGTERM else KeyboardInterrupt
