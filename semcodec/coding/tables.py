"""Making, packing and reading the integer tables of ``semcodec.priors``.

A packet often holds only a few thousand symbols, so a table that travels has to be tiny: it is sent as the
*levels* of its counts, a scale that is linear for small counts and logarithmic with ``mantissa`` bits above, and
neighbouring levels differ little. Both ends then turn the same levels into the same frequencies by integer
arithmetic alone.

Layout of a packed table ::

    u16    mantissa | level parameter << 5 | gap parameter << 10 | escape << 15     (little endian)
    varint zigzag(value of the first symbol that occurs)
    varint number of symbols that occur - 1
    bits   Rice codes of the gaps between symbols (left out when the gap parameter is 31: there are none),
           then of the zigzag differences of levels; the unary parts of each run stand before its remainders
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec._varint import read_number
from semcodec._varint import varint as varint
from semcodec.errors import CorruptStream, UsageError
from semcodec.priors import Indexed, Table

PRECISION = 24
"""Tables made here sum to ``2 ** 24``, or to their counts' own sum where that is a smaller power of two."""
MAX_SPAN = 1 << 20
"""Largest alphabet of one packed table, from its first to its last symbol."""
EXACT = 24
"""Mantissa bits that keep every count below ``2 ** 25`` as it is."""
_MANY = 1 << 17
_NO_GAPS = 31
_MAX_TOTAL = 1 << 38  # times 2 ** 24 still fits in int64

Int64 = npt.NDArray[np.int64]
_Bits = npt.NDArray[np.uint8]


def table_from_counts(counts: npt.ArrayLike, offset: int = 0, *, escape: bool = False) -> Table:
    """The table of integer ``counts`` (1-D) of the symbols ``offset, offset + 1, ...``.

    Every symbol that was counted keeps a frequency above zero. With ``escape`` one more count is added, of the
    code through which symbols that were never counted go.
    Raises UsageError if nothing was counted or a count is negative.
    """
    array = np.asarray(counts).astype(np.int64)
    if array.ndim != 1 or not array.size or array.min() < 0 or not 0 < array.sum() < _MAX_TOTAL:
        raise UsageError("a table needs a row of counts, none below zero and at least one above")
    if escape:
        array = np.append(array, 1)
    return Table(offset, _normalise(array), escape)


def channel_tables(counts: npt.ArrayLike, offset: int = 0, *, escape: bool = False) -> tuple[Table, ...]:
    """One static table for each channel, from integer counts (C, N) as ``table_from_counts`` takes them.

    Made once for equal counts, so that an entropy stage prepares each table once and not for every packet.
    """
    rows = np.ascontiguousarray(counts, np.int32)
    return _channel_tables(rows.tobytes(), len(rows), offset, escape)


def channel_prior(counts: npt.ArrayLike, places: int, offset: int = 0, *, escape: bool = False) -> Indexed:
    """``channel_tables`` for ``places`` symbols of each channel, channel by channel."""
    tables = channel_tables(counts, offset, escape=escape)
    return Indexed(tables, np.repeat(np.arange(len(tables), dtype=np.int32), places))


@lru_cache(maxsize=256)
def _channel_tables(counts: bytes, channels: int, offset: int, escape: bool) -> tuple[Table, ...]:
    rows = np.frombuffer(counts, np.int32).reshape(channels, -1)
    return tuple(table_from_counts(row, offset, escape=escape) for row in rows)


def table_from_symbols(symbols: npt.NDArray[np.integer[Any]], *, escape: bool = True) -> Table:
    """The table of the histogram of ``symbols`` (1-D integers, not empty), by default with an escape."""
    if not symbols.size:
        raise UsageError("a table needs at least one symbol to count")
    low, high = int(symbols.min()), int(symbols.max())
    if high - low >= MAX_SPAN:
        raise UsageError(f"symbols from {low} to {high} are too far apart for one table of at most {MAX_SPAN} entries")
    return table_from_counts(np.bincount(symbols.astype(np.int64) - low), low, escape=escape)


def ideal_bits(counts: npt.NDArray[np.integer[Any]], table: Table) -> float:
    """Bits that an ideal coder spends with ``table`` on symbols of these ``counts``, aligned with its entries."""
    used = counts > 0
    return float((counts[used] * (table.precision - np.log2(table.freqs[: len(counts)][used]))).sum())


def fit_table(counts: npt.NDArray[np.integer[Any]], offset: int = 0) -> tuple[bytes, Table, float]:
    """The packed table that makes table and symbols together small, next to the smallest.

    counts: 1-D, of the symbols ``offset, offset + 1, ...``, at least one above zero.
    Returns its bytes, the table that ``unpack_table`` reads from them, and the total in bits.
    """
    # A mantissa of m bits costs about 0.025 / 4**m bit a symbol in precision and m bits an entry in the table.
    places = np.flatnonzero(counts)
    offset += int(places[0])
    used: Int64 = counts[places[0] : places[-1] + 1].astype(np.int64)
    ratio = float(used.sum()) / len(places)
    best = max(0, int(np.log2(max(1.0, 0.035 * ratio)) / 2))
    fits = []
    # For few symbols the neighbours are worth trying; for many, one more bit keeps the loss below 0.05 %.
    for mantissa in range(max(0, best - 1), best + 2) if used.sum() < _MANY else (best + 1,):
        data = _pack(used, offset, mantissa, False)
        table, _ = unpack_table(data)
        fits.append((8 * len(data) + ideal_bits(used, table), data, table))
    bits, data, table = min(fits, key=lambda fit: fit[0])
    return data, table, bits


def pack_table(table: Table) -> bytes:
    """Serialise ``table`` exactly, but for entries of zero at its ends. ``fit_table`` makes smaller ones."""
    freqs = table.freqs.astype(np.int64)
    escape = bool(table.escape and freqs[-1])
    if table.escape and not escape:
        freqs = freqs[:-1]
    used = freqs[freqs > 0]
    mantissa = next(m for m in range(EXACT + 1) if (_from_levels(_to_levels(used, m), m) == used).all())
    return _pack(freqs, table.offset, mantissa, escape)


def unpack_table(data: bytes) -> tuple[Table, int]:
    """The table at the start of ``data`` and how many bytes it takes. Raises CorruptStream."""
    if len(data) < 2:
        raise CorruptStream("a table is cut short")
    head = int.from_bytes(data[:2], "little")
    mantissa, level_k, gap_k, escape = head & 31, head >> 5 & 31, head >> 10 & 31, bool(head >> 15)
    first, at = read_varint(data, 2)
    present, at = read_varint(data, at)
    present += 1
    if mantissa > EXACT or level_k > EXACT + 3 or present > min(MAX_SPAN, 8 * (len(data) - at)):
        raise CorruptStream("a table's header is damaged")
    # The packer's parameters never make an entry longer than 64 bits, so no more than that is looked at.
    bits = np.unpackbits(np.frombuffer(data, np.uint8, min(len(data) - at, 8 * present + 1), at))
    gaps, used = np.zeros(present, np.int64), 0
    if gap_k != _NO_GAPS:
        gaps, used = _read_rice(bits, 0, present, gap_k)
    zigzag, used = _read_rice(bits, used, present, level_k)
    levels = np.cumsum(zigzag >> 1 ^ -(zigzag & 1))
    places = np.cumsum(gaps + 1) - 1
    if bits[used : -(-used // 8) * 8].any() or places[-1] >= MAX_SPAN:
        raise CorruptStream("a table's entries are damaged")
    counts = np.zeros(int(places[-1]) + 1, np.int64)
    counts[places] = _from_levels(levels, mantissa)
    offset = unzigzag(first)
    in_range = -(1 << 31) <= offset <= (1 << 31) - len(counts) + escape
    if not 0 < counts.sum() < _MAX_TOTAL or not in_range or (escape and len(counts) == 1):
        raise CorruptStream("a table's entries are damaged")
    return Table(offset, _normalise(counts), escape), at + -(-used // 8)


def _pack(counts: Int64, offset: int, mantissa: int, escape: bool) -> bytes:
    places = np.flatnonzero(counts)
    if places[-1] - places[0] >= MAX_SPAN:
        raise UsageError(f"a packed table has at most {MAX_SPAN} entries, not {places[-1] - places[0] + 1}")
    gaps = np.diff(places) - 1
    levels = np.diff(_to_levels(counts[places], mantissa), prepend=0)
    gap_k = _NO_GAPS
    bits: list[_Bits] = []
    if gaps.any():
        gap_k, bits = _rice(np.append(0, gaps))
    level_k, level_bits = _rice(levels << 1 ^ levels >> 63)
    head = mantissa | level_k << 5 | gap_k << 10 | escape << 15
    numbers = varint(zigzag(offset + int(places[0]))) + varint(len(places) - 1)
    return head.to_bytes(2, "little") + numbers + np.packbits(np.concatenate(bits + level_bits)).tobytes()


def _normalise(counts: Int64) -> npt.NDArray[np.uint32]:
    """Frequencies that sum to a power of two, one or more where the count is: exact integers on every machine."""
    total = int(counts.sum())
    if total <= 1 << PRECISION and total & (total - 1) == 0:
        return counts.astype(np.uint32)
    present = counts > 0
    # One for each symbol that occurs, and the rest shared out by rounding the cumulative sum, which cannot drift.
    share = np.cumsum(counts) * ((1 << PRECISION) - int(np.count_nonzero(present))) // total
    return (np.diff(share, prepend=0) + present).astype(np.uint32)


def _to_levels(counts: Int64, mantissa: int) -> Int64:
    """Counts to the nearest level: themselves below ``2 ** (mantissa + 1)``, floating point above."""
    shift = np.maximum(np.frexp(counts)[1].astype(np.int64) - 1 - mantissa, 0)
    return np.asarray((shift << mantissa) + (counts + (1 << shift >> 1) >> shift), np.int64)


def _from_levels(levels: Int64, mantissa: int) -> Int64:
    if levels.min() < 1 or levels.max() >= 40 << mantissa:
        raise CorruptStream("a table's levels are damaged")
    shift = np.maximum((levels >> mantissa) - 1, 0)
    if int(shift.max()) + mantissa > 37:
        raise CorruptStream("a table's levels are damaged")
    return np.asarray(levels - (shift << mantissa) << shift, np.int64)


def _rice(values: Int64) -> tuple[int, list[_Bits]]:
    """The best Rice parameter of non-negative ``values``, and their bits: all unary parts, all remainders."""
    top = int(values.max()).bit_length()
    near = min(top, int(values.mean()).bit_length())
    k = min({*range(max(0, near - 2), near + 1), top}, key=lambda k: int((values >> k).sum()) + k * len(values))
    ends = np.cumsum((values >> k) + 1)
    unary = np.zeros(int(ends[-1]), np.uint8)
    unary[ends - 1] = 1
    remainders = (values[:, None] >> np.arange(k - 1, -1, -1) & 1).astype(np.uint8)
    return k, [unary, remainders.ravel()]


def _read_rice(bits: _Bits, at: int, count: int, k: int) -> tuple[Int64, int]:
    ends = np.flatnonzero(bits[at:])[:count]
    if len(ends) < count or at + int(ends[-1]) + 1 + count * k > len(bits):
        raise CorruptStream("a table is cut short")
    quotients = np.diff(ends, prepend=-1) - 1
    at += int(ends[-1]) + 1
    remainders = bits[at : at + count * k].reshape(count, k) @ (1 << np.arange(k - 1, -1, -1, dtype=np.int64))
    return np.asarray((quotients << k) + remainders, np.int64), at + count * k


def zigzag(value: int) -> int:
    """Signed to unsigned, small to small: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return 2 * value if value >= 0 else -2 * value - 1


def unzigzag(value: int) -> int:
    """The inverse of ``zigzag``."""
    return value >> 1 ^ -(value & 1)


def read_varint(data: bytes, at: int = 0) -> tuple[int, int]:
    """The integer that ``varint`` wrote at ``at`` and where it ends. Raises CorruptStream."""
    rest = iter(data[at : at + 9])
    try:
        value = read_number(lambda: next(rest), "a chunk")
    except StopIteration:
        raise CorruptStream("a number is cut short") from None
    return value, at + len(varint(value))
