"""Histograms that travel with their symbols.

Layout: ``u8 shift | packed table | low bits | payload``. A value too wide for a table is split: its high part is
coded by the table, its low ``shift`` bits are packed as they are; on smooth data these are as good as uniform, and
the table stays small. A shift of 255 stands for no table at all: everything is packed at a fixed width, which is
smallest for a few symbols that hardly repeat.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from semcodec.coding.bits import pack_bits, packed_size, unpack_bits
from semcodec.coding.tables import fit_table, unpack_table
from semcodec.errors import CorruptStream
from semcodec.priors import Int32, Table
from semcodec_plugins.entropy.pack import pack_span, unpack_span

PACKED = 255
MAX_BITS = 16  # of the widest high part
_SMALL_BITS = (8, 5)  # also tried where symbols are few and the table weighs
_FEW = 1 << 15


def encode_counted(symbols: Int32, code: Callable[[Int32, Table], bytes]) -> bytes:
    """The smallest of the layouts; ``code`` is given symbols and a table that has them all."""
    low, high = int(symbols.min()), int(symbols.max())
    width = (high - low).bit_length()
    widths = (MAX_BITS, *_SMALL_BITS) if len(symbols) < _FEW else (MAX_BITS,)
    best, packed = None, len(symbols) * width + 8 * 6
    for shift in {max(0, width - bits) for bits in widths}:
        counts = _histogram(symbols, shift, low >> shift, (high >> shift) - (low >> shift) + 1)
        data, table, bits = fit_table(counts, low >> shift)
        bits += shift * len(symbols)
        if best is None or bits < best[0]:
            best = bits, shift, data, table
    assert best is not None
    bits, shift, data, table = best
    if packed < bits:
        return bytes([PACKED]) + pack_span(symbols)
    if not shift:
        return b"\0" + data + code(symbols, table)
    lows = pack_bits((symbols & (1 << shift) - 1).view(np.uint32), shift)
    return bytes([shift]) + data + lows + code(symbols >> shift, table)


def decode_counted(data: bytes, count: int, decode: Callable[[bytes, Table, int], Int32]) -> Int32:
    """The inverse; ``decode`` is given octets, a table and a count. Raises CorruptStream."""
    if data[:1] == bytes([PACKED]):
        return unpack_span(data[1:], count)
    if not data or data[0] > 31:
        raise CorruptStream("counted symbols have a damaged header")
    shift = data[0]
    table, at = unpack_table(data[1:])
    middle = 1 + at + packed_size(shift, count)
    symbols = decode(data[middle:], table, count)
    if shift:
        symbols <<= shift
        symbols |= unpack_bits(data[1 + at : middle], shift, count).view(np.int32)
    return symbols


def counted_side_bytes(data: bytes) -> int:
    """How many of the bytes are the table."""
    return 0 if data[0] == PACKED else unpack_table(data[1:])[1]


def _histogram(symbols: Int32, shift: int, low: int, size: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(size, np.int64)
    block = max(_FEW, 4 * size)  # what bincount copies stays in the cache
    for i in range(0, len(symbols), block):
        counts += np.bincount((symbols[i : i + block] >> shift) - np.int32(low), minlength=size)
    return counts
