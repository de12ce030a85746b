"""What takes the place of CompressAI's entropy coder: its integers go to a tape, and from there to our stages.

CompressAI's own never returns for NaN and reads beyond the end of bytes that are damaged. Here no byte meets it. Its
models ask their ``entropy_coder`` for symbols and table indexes, one list at a time, in the same order at both ends;
which tape this is about is known to the thread alone, so that an instance serves several at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from semcodec.coding import gaussian_tables
from semcodec.errors import UsageError
from semcodec.interfaces import Int32, Source
from semcodec.priors import Indexed, Table
from semcodec_plugins.learned.coding import Bytes

LARGEST = 1 << 24
"""Beyond which float32 holds no consecutive integers."""


class Tape(Protocol):
    """Where CompressAI's models put one sample's symbols, or get them from."""

    def put(self, symbols: Int32, index: Int32, static: bool) -> int:
        """Take symbols and the indexes of their tables; the number that ``get`` is asked for."""

    def get(self, number: int, index: Int32, static: bool) -> Int32:
        """The symbols whose tables are these."""


TAPE: ContextVar[Tape | None] = ContextVar("tape", default=None)


@contextmanager
def on(tape: Tape) -> Iterator[None]:
    """CompressAI's models code on this tape."""
    token = TAPE.set(tape)
    try:
        yield
    finally:
        TAPE.reset(token)


class Coder:
    """Has the two methods of CompressAI's coder. static: whether it is that of an EntropyBottleneck."""

    name = "ans"  # what CompressAI pickles in its place

    def __init__(self, static: bool) -> None:
        self.static = static

    def encode_with_indexes(self, symbols: Sequence[int], index: Sequence[int], *tables: Any) -> int:
        """Put symbols on the thread's tape. Raises UsageError for what float32 does not hold exactly."""
        tape = TAPE.get()
        assert tape is not None
        values = np.array(symbols, np.int64)
        if values.size and int(np.abs(values).max()) > LARGEST:
            raise UsageError(f"latents beyond {LARGEST} or NaN cannot be coded: look at the input or weights")
        return tape.put(values.astype(np.int32), np.array(index, np.int32), self.static)

    def decode_with_indexes(self, number: int, index: Sequence[int], *tables: Any) -> Int32:
        """The symbols from the thread's tape."""
        tape = TAPE.get()
        assert tape is not None
        return tape.get(number, np.array(index, np.int32), self.static)


STATIC, GAUSSIAN = Coder(True), Coder(False)


@dataclass
class Written:
    """What a sample sends, in order: symbols, and the index of the table of each; which are static."""

    symbols: list[Int32] = field(default_factory=list)
    index: list[Bytes] = field(default_factory=list)

    def put(self, symbols: Int32, index: Int32, static: bool) -> int:
        """Keep symbols and indexes; their number among all."""
        self.symbols.append(symbols)
        self.index.append(np.zeros(0, np.uint8) if static else index.astype(np.uint8))
        return len(self.symbols) - 1

    def get(self, number: int, index: Int32, static: bool) -> Int32:
        """The symbols that were put under this number."""
        return self.symbols[number]


@dataclass
class Replayed:
    """Symbols that are there, in order."""

    symbols: Sequence[Int32]
    at: int = 0

    def put(self, symbols: Int32, index: Int32, static: bool) -> int:
        """Never called: reading codes nothing."""
        raise AssertionError("nothing is coded where symbols are read")

    def get(self, number: int, index: Int32, static: bool) -> Int32:
        """The next symbols."""
        self.at += 1
        return self.symbols[self.at - 1]


@dataclass
class Received:
    """Symbols as they come from a packet, under names in order; ``tables`` are the static ones."""

    source: Source
    names: Sequence[str]
    tables: tuple[Table, ...]
    symbols: list[Int32] = field(default_factory=list)
    index: list[Bytes] = field(default_factory=list)

    def put(self, symbols: Int32, index: Int32, static: bool) -> int:
        """Never called: reading codes nothing."""
        raise AssertionError("nothing is coded where symbols are read")

    def get(self, number: int, index: Int32, static: bool) -> Int32:
        """The next symbols from the packet, by these tables. Raises CorruptStream."""
        self.index.append(np.zeros(0, np.uint8) if static else index.astype(np.uint8))
        prior = Indexed(self.tables if static else gaussian_tables.tables(), index)
        self.symbols.append(self.source.symbols(self.names[len(self.symbols)], len(index), prior))
        return self.symbols[-1]
