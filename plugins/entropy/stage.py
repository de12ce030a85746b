"""What all stages here share: checks, the empty array, and priors of plain bits."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from semcodec.coding.bits import pack_bits, unpack_bits
from semcodec.errors import CorruptStream, UsageError
from semcodec.interfaces import EntropyStage
from semcodec.priors import Bits, Int32, Prior


class Stage(EntropyStage):
    """A stage that codes at least one symbol, never plain bits: those are packed, whatever the stage.

    Raises UsageError for symbols that are no 1-D int32 array.
    """

    def encode(self, symbols: Int32, prior: Prior) -> bytes:
        """Symbols to bytes; no symbols make no bytes. Raises UsageError, see the class."""
        if symbols.ndim != 1 or symbols.dtype != np.int32:
            raise UsageError(f"an entropy stage codes 1-D int32 arrays, not {symbols.ndim}-D {symbols.dtype}")
        if not len(symbols):
            return b""
        if isinstance(prior, Bits):
            return _encode_bits(symbols, prior.width)
        return self._encode(np.ascontiguousarray(symbols), prior)

    def decode(self, data: bytes, prior: Prior, count: int) -> Int32:
        """The inverse of ``encode``. Raises CorruptStream."""
        if not count:
            if len(data):
                raise CorruptStream(f"{len(data)} bytes where no symbol was sent")
            return np.zeros(0, np.int32)
        if isinstance(prior, Bits):
            return _decode_bits(data, prior.width, count)
        return self._decode(data, prior, count)

    def side_bytes(self, data: bytes, prior: Prior) -> int:
        """Octets of tables among ``data``."""
        return 0 if isinstance(prior, Bits) or not data else self._side_bytes(data, prior)

    @abstractmethod
    def _encode(self, symbols: Int32, prior: Prior) -> bytes: ...

    @abstractmethod
    def _decode(self, data: bytes, prior: Prior, count: int) -> Int32: ...

    def _side_bytes(self, data: bytes, prior: Prior) -> int:
        return 0


def _encode_bits(symbols: Int32, width: int) -> bytes:
    values = symbols.view(np.uint32)
    if int(values.max()) >> width == 0:
        return pack_bits(values, width)
    # Symbols that the prior rules out go as they are, told apart by their length.
    return b"\0" + symbols.astype("<i4").tobytes()


def _decode_bits(data: bytes, width: int, count: int) -> Int32:
    if len(data) == 1 + 4 * count and data[0] == 0:
        return np.frombuffer(data, "<i4", count, 1).astype(np.int32)
    return unpack_bits(data, width, count).view(np.int32)
