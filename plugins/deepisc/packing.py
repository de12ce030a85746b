"""Integers of a fixed number of bits each, one after the other: what is not entropy coded."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.errors import CorruptStream


def packed_size(count: int, bits: int) -> int:
    """Bytes of ``count`` numbers of so many bits."""
    return -(-count * bits // 8)


def pack(values: npt.NDArray[np.integer[Any]], bits: int) -> bytes:
    """Integers (n,) of 0 to 2**bits - 1, highest bit first; the last byte is filled up with zeros."""
    planes = values.astype(np.uint16)[:, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint16) & 1
    return np.packbits(planes.astype(np.uint8)).tobytes()


def unpack(data: bytes, count: int, bits: int, name: str) -> npt.NDArray[np.int32]:
    """The inverse of ``pack``. Raises CorruptStream, which says what ``name`` is, where it cannot have packed this."""
    planes = np.unpackbits(np.frombuffer(data, np.uint8))
    if len(data) != packed_size(count, bits) or planes[count * bits :].any():
        raise CorruptStream(f"{name}: not {count} numbers of {bits} bits; the stream is damaged, get it again")
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.int32)
    values: npt.NDArray[np.int32] = planes[: count * bits].reshape(count, bits).astype(np.int32) @ weights
    return values
