"""The primitives that header and records are made of: numbers, checksums, bounded reading, canonical msgpack."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO, NoReturn, TypeVar

import msgspec

from semcodec._varint import read_number
from semcodec._varint import varint as varint
from semcodec.errors import TruncatedStream

MAGIC = b"SEMC"
"""How a stream begins, whatever its format; one byte, the format's version, follows."""
BLOCK = 1 << 16

T = TypeVar("T")
Scalar = None | bool | int | float | str
"""What a call parameter may be."""

packer = msgspec.msgpack.Encoder()


def unpack(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    """Typed msgpack. Raises ValueError also for a second spelling of the same value, so that bytes have one meaning."""
    try:
        value = decoder.decode(data)
    except (ValueError, RecursionError) as error:
        # The message may quote the stream: no control character of it reaches a terminal.
        raise ValueError(str(error).encode("unicode_escape").decode()[:200]) from error
    if packer.encode(value) != data:
        raise ValueError("not the canonical msgpack of its content")
    return value


def checksum(data: bytes) -> bytes:
    """CRC-32, four bytes, little-endian."""
    return zlib.crc32(data).to_bytes(4, "little")


def read(stream: BinaryIO, count: int) -> bytes:
    """Up to ``count`` bytes; fewer only at the end. Blocks grow with what came, so a false length takes no memory."""
    data = stream.read(min(count, BLOCK))
    if not data or len(data) == count:
        return data
    buffer = io.BytesIO()  # its getvalue() makes no copy
    buffer.write(data)
    while (have := buffer.tell()) < count and (data := stream.read(min(count - have, max(BLOCK, have)))):
        buffer.write(data)
    return buffer.getvalue()


def truncated(what: str) -> NoReturn:
    """Raise TruncatedStream. what: in words, what the stream ends inside."""
    raise TruncatedStream(f"the stream ends inside {what}: fetch or encode it again")


def exactly(stream: BinaryIO, count: int, what: str) -> bytes:
    """``count`` bytes of a stream. Raises TruncatedStream, which says ``what`` it ends inside."""
    data = read(stream, count)
    if len(data) < count:
        truncated(what)
    return data


def read_varint(stream: BinaryIO, what: str) -> int:
    """Raises CorruptStream, and TruncatedStream where the stream ends inside it."""
    return read_number(lambda: exactly(stream, 1, what)[0], what)
