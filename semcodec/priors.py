"""Priors are data: integer tables that any entropy stage can use.

Tables are exact integers that sum to a power of two, so encoder and decoder agree on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.errors import UsageError

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Table:
    """A static distribution over ``offset .. offset + len(freqs) - 1``.

    freqs: uint32, every entry may be zero; the sum is 2 ** precision. When ``escape`` is true the last
    entry is no symbol but the probability of the escape code, through which any other int32 goes.
    """

    offset: int
    freqs: npt.NDArray[np.uint32]
    escape: bool = False

    def __post_init__(self) -> None:
        total = int(self.freqs.sum(dtype=np.uint64))
        if total <= 0 or total & (total - 1) or total > 1 << 24:
            raise UsageError(f"a table's frequencies must sum to a power of two up to 2**24, not {total}")

    @property
    def precision(self) -> int:
        """Binary logarithm of the sum of the frequencies."""
        return int(self.freqs.sum(dtype=np.uint64)).bit_length() - 1


@dataclass(frozen=True)
class Counted:
    """The histogram is counted by the encoder and travels in the stream."""


@dataclass(frozen=True, eq=False)
class Indexed:
    """One of ``tables`` per symbol: ``index`` is an integer array as long as the symbols, known to both ends."""

    tables: tuple[Table, ...]
    index: npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Bits:
    """Symbols are integers of ``width`` bits, ``0 <= s < 2**width``, thought uniform: no table."""

    width: int = 1


Prior = Counted | Table | Indexed | Bits
