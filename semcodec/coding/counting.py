"""Counts work that a count of torch's operations would miss or give to the wrong end; nothing where nobody counts.

Priors are computed in numpy, and a server that is asked back runs in the device's process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Count:
    """integers: multiply-accumulates of networks in integers. server: those of all kinds that the server will do.

    networks: gives the multiply-accumulates of torch's networks so far. away: whether the server is at work.
    """

    networks: Callable[[], int] = field(default=lambda: 0, repr=False)
    integers: int = 0
    server: int = 0
    away: bool = False

    @property
    def total(self) -> int:
        """All multiply-accumulates so far, whoever does them."""
        return self.networks() + self.integers


_current: ContextVar[Count | None] = ContextVar("count", default=None)


@contextmanager
def counting(count: Count) -> Iterator[Count]:
    """Counts, of this thread, what is done inside."""
    token = _current.set(count)
    try:
        yield count
    finally:
        _current.reset(token)


def add_macs(macs: int) -> None:
    """Multiply-accumulates that were done."""
    count = _current.get()
    if count is not None:
        count.integers += macs


@contextmanager
def at_server() -> Iterator[None]:
    """What is done inside is the server's to do, in whatever process it runs today."""
    count = _current.get()
    if count is None:
        yield
        return
    before, count.away = count.total, True
    try:
        yield
    finally:
        count.away = False
        count.server += count.total - before
