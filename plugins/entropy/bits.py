"""Integers of a fixed width as a string of bits, most significant first, and the split of wide values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from semcodec.errors import CorruptStream

UInt32 = npt.NDArray[np.uint32]
_BLOCK = 1 << 16  # values packed at a time: bounds the memory of the bit arrays, and fills whole bytes at any width


def packed_size(width: int, count: int) -> int:
    """Octets of ``count`` values of ``width`` bits each."""
    return (width * count + 7) // 8


def pack_bits(values: UInt32, width: int) -> bytes:
    """The low ``width`` bits (0 to 32) of each value, in ``packed_size`` bytes."""
    if not width:
        return b""
    if width in (8, 16, 32):
        return values.astype(f">u{width // 8}").tobytes()
    if width == 1:
        return np.packbits((values & 1).astype(np.uint8)).tobytes()
    return b"".join(_pack_block(values[i : i + _BLOCK], width) for i in range(0, len(values), _BLOCK))


def unpack_bits(data: bytes, width: int, count: int) -> UInt32:
    """The inverse of ``pack_bits``. Raises CorruptStream unless ``data`` has exactly the right size."""
    size = packed_size(width, count)
    padding = 8 * size - width * count
    if len(data) != size or (padding and data[-1] & (1 << padding) - 1):
        raise CorruptStream(f"{len(data)} bytes are not {count} packed values of {width} bits")
    if width in (8, 16, 32):
        return np.frombuffer(data, f">u{width // 8}").astype(np.uint32)
    octets, values = np.frombuffer(data, np.uint8), np.zeros(count, np.uint32)
    if width:
        for i in range(0, count, _BLOCK):
            block = octets[i * width // 8 : packed_size(width, min(i + _BLOCK, count))]
            values[i : i + _BLOCK] = _unpack_block(block, width, min(_BLOCK, count - i))
    return values


def _pack_block(values: UInt32, width: int) -> bytes:
    octets = values.astype(">u4").view(np.uint8).reshape(-1, 4)
    return np.packbits(np.unpackbits(octets, axis=1)[:, 32 - width :]).tobytes()


def _unpack_block(octets: npt.NDArray[np.uint8], width: int, count: int) -> UInt32:
    bits = np.zeros((count, 32), np.uint8)
    bits[:, 32 - width :] = np.unpackbits(octets, count=width * count).reshape(count, width)
    return np.packbits(bits, axis=1).view(">u4").ravel().astype(np.uint32)
