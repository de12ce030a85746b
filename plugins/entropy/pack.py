"""Bit packing.

Layout: ``zigzag varint of the smallest symbol | u8 width | (symbol - smallest) in width bits each``.
"""

from __future__ import annotations

import numpy as np

from semcodec.coding.bits import UInt32, pack_bits, unpack_bits
from semcodec.coding.tables import read_varint, unzigzag, varint, zigzag
from semcodec.errors import CorruptStream
from semcodec.priors import Int32, Prior
from semcodec_plugins.entropy.stage import Stage


class Pack(Stage):
    """The narrowest fixed width. Knows no probabilities, so tables are ignored."""

    def _encode(self, symbols: Int32, prior: Prior) -> bytes:
        return pack_span(symbols)

    def _decode(self, data: bytes, prior: Prior, count: int) -> Int32:
        return unpack_span(data, count)


def pack_span(symbols: Int32) -> bytes:
    """All of a non-empty array, at the width of its span."""
    low = int(symbols.min())
    width = (int(symbols.max()) - low).bit_length()
    return lowest(low) + bytes([width]) + pack_bits((symbols - np.int32(low)).view(np.uint32), width)


def unpack_span(data: bytes, count: int) -> Int32:
    """The inverse of ``pack_span``. Raises CorruptStream."""
    low, at = read_lowest(data)
    if at >= len(data) or data[at] > 32:
        raise CorruptStream("packed symbols have a damaged header")
    return raised(unpack_bits(data[at + 1 :], data[at], count), low)


def lowest(low: int) -> bytes:
    """The smallest symbol, as at the start of a layout."""
    return varint(zigzag(low))


def read_lowest(data: bytes) -> tuple[int, int]:
    """The smallest symbol at the start of ``data`` and where it ends. Raises CorruptStream."""
    value, at = read_varint(data)
    if value >> 32:
        raise CorruptStream("the smallest symbol is out of range")
    return unzigzag(value), at


def raised(values: UInt32, low: int) -> Int32:
    """Unsigned differences from ``low`` back to symbols, in place; modulo 2**32, so nothing overflows."""
    symbols = values.view(np.int32)
    symbols += np.int32(low)
    return symbols
