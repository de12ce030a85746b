"""General-purpose compressors on the narrowest bytes that hold the symbols.

Layout: ``zigzag varint of the smallest symbol | u8 octets per symbol | compressed``, where what is compressed is the
symbols less the smallest, lowest octets of all symbols first, then the next ones. Without octets (one symbol
throughout) nothing follows.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod

import numpy as np
import zstandard

from semcodec.errors import CorruptStream, first_line
from semcodec.priors import Int32, Prior
from semcodec_plugins.entropy.pack import lowest, raised, read_lowest
from semcodec_plugins.entropy.stage import Stage


class Bytewise(Stage):
    """Cannot use tables, so ignores them."""

    def _encode(self, symbols: Int32, prior: Prior) -> bytes:
        low = int(symbols.min())
        width = ((int(symbols.max()) - low).bit_length() + 7) // 8
        head = lowest(low) + bytes([width])
        if not width:
            return head
        octets = (symbols - np.int32(low)).astype("<u4").view(np.uint8).reshape(-1, 4)
        return head + self.compress(octets.T[:width].tobytes())

    def _decode(self, data: bytes, prior: Prior, count: int) -> Int32:
        low, at = read_lowest(data)
        if at >= len(data) or data[at] > 4 or (data[at] == 0 and len(data) > at + 1):
            raise CorruptStream("compressed symbols have a damaged header")
        octets = np.zeros((4, count), np.uint8)
        if width := data[at]:
            plain = self.decompress(data[at + 1 :], width * count)
            if len(plain) != width * count:
                raise CorruptStream(f"{len(plain)} bytes where {width * count} were compressed")
            octets[:width] = np.frombuffer(plain, np.uint8).reshape(width, count)
        return raised(octets.T.copy().view("<u4").ravel().astype(np.uint32, copy=False), low)

    @abstractmethod
    def compress(self, data: bytes) -> bytes:
        """Octets to fewer octets, the same ones every time."""

    @abstractmethod
    def decompress(self, data: bytes, size: int) -> bytes:
        """Never takes more memory than ``size`` needs. Raises CorruptStream."""


class Deflate(Bytewise):
    """zlib's deflate, raw: no header, no checksum of its own."""

    strategy = zlib.Z_DEFAULT_STRATEGY

    def compress(self, data: bytes) -> bytes:
        coder = zlib.compressobj(6, zlib.DEFLATED, -15, 9, self.strategy)
        return coder.compress(data) + coder.flush()

    def decompress(self, data: bytes, size: int) -> bytes:
        coder = zlib.decompressobj(-15)
        try:
            plain = coder.decompress(data, size + 1)
        except zlib.error as error:
            raise CorruptStream(f"deflate: {first_line(error)}") from error
        if not coder.eof or coder.unused_data:
            raise CorruptStream("deflate: the data does not end where it should")
        return plain


class Zstd(Bytewise):
    """Zstandard without magic number, size or checksum: the container has them."""

    def compress(self, data: bytes) -> bytes:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            9, source_size=len(data), format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=False
        )
        return zstandard.ZstdCompressor(compression_params=parameters).compress(data)

    def decompress(self, data: bytes, size: int) -> bytes:
        try:
            known = zstandard.get_frame_parameters(data, format=zstandard.FORMAT_ZSTD1_MAGICLESS).content_size
            if known != zstandard.CONTENTSIZE_UNKNOWN:  # a size here would be believed, whatever it is
                raise CorruptStream("zstd: a frame that was not written here")
            coder = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS)
            return coder.decompress(data, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise CorruptStream(f"zstd: {first_line(error)}") from error
