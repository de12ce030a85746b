"""The records of a semcodec stream, in any format: one header, then one record a sample.

What is written is in the format of the header that it is written under, and read by the module of that format.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from semcodec.container.header import (
    FORMAT,
    CurrentHeader,
    StreamHeader,
    check_versions,
    check_weights,
    format_of,
    read_header,
    write_header,
)
from semcodec.container.primitives import MAGIC, Scalar
from semcodec.container.records import Chunk, LocalRecord, Packet, Part

__all__ = [
    "FORMAT",
    "MAGIC",
    "Chunk",
    "CurrentHeader",
    "LocalRecord",
    "Packet",
    "Part",
    "Scalar",
    "StreamHeader",
    "check_versions",
    "check_weights",
    "cut_mark",
    "read_header",
    "read_packets",
    "read_stream",
    "write_header",
    "write_local",
    "write_packet",
]


def write_packet(header: StreamHeader, sequence: int, params: Mapping[str, Scalar], parts: Sequence[Part]) -> bytes:
    """One packet: a head and ``parts`` in order. ``params``: call parameters by name; one left out is the header's.

    Raises UsageError for what could not be read back.
    """
    return format_of(header.format).write_packet(header, sequence, params, parts)


def write_local(header: StreamHeader, record: LocalRecord) -> bytes:
    """One LOCAL record; its length is ``bytes_local``. Raises UsageError for what could not be read back."""
    return format_of(header.format).write_local(header, record)


def cut_mark(layers: int, version: int = FORMAT) -> bytes:
    """What goes before a packet of which the first ``layers`` follow, and no more."""
    return format_of(version).cut_mark(layers)


def read_packets(stream: BinaryIO, header: StreamHeader) -> Iterator[Packet | LocalRecord]:
    """The records that follow ``header``, one at a time as they are asked for.

    A chunk's own checksum is tested when it is read by name, see ``Chunk.verify``. Raises CorruptStream and
    TruncatedStream; only a cut at the end of a layer, or after a whole record, is no error.
    """
    return format_of(header.format).read_packets(stream, header)


def read_stream(source: bytes | BinaryIO) -> tuple[StreamHeader, Iterator[Packet | LocalRecord]]:
    """Header and records of a whole stream: ``read_header`` then ``read_packets``."""
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    header = read_header(stream)
    return header, read_packets(stream, header)
