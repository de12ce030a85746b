"""Layers of a stream, dropped without decoding it: one stream for receivers that want less than all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import IO, BinaryIO

from semcodec.container.header import format_of
from semcodec.container.packets import Packet, read_header, read_packets
from semcodec.errors import StreamError, UsageError

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Cut:
    """What was done. records: of the stream; cut: those of which something was dropped. before, after: bytes."""

    records: int
    cut: int
    before: int
    after: int


def cut_stream(source: BinaryIO, target: IO[bytes], layers: int) -> Cut:
    """Copy a stream with at most ``layers`` layers of each packet.

    source: seekable. A packet with no more layers than that is copied as it is, as is a LOCAL record; one that was cut
    before is cut again. Chunks are neither decoded nor changed, so their own checksums go on to hold. Raises UsageError
    where no packet has so many layers, StreamError for a damaged or truncated stream.
    """
    if layers < 1:
        raise UsageError(f"a packet needs its first layer at least: --layers is 1 or more, not {layers}")
    header = read_header(source)
    written = format_of(header.format)
    start = source.tell()
    after = _copy(source, target, 0, start)
    records = cut = most = 0
    for record in read_packets(source, header):
        end = source.tell()
        if isinstance(record, Packet):
            most = max(most, record.layers_total)
            if layers < record.layers_present:
                after += target.write(written.cut_mark(layers))
                after += _copy(source, target, start + record.mark, end - written.bytes_behind(record, layers))
                cut, start = cut + 1, end
        after += _copy(source, target, start, end)
        records, start = records + 1, end
    if most < 2:
        raise UsageError("this stream has no layers: each packet decodes whole or not at all")
    if layers > most:
        raise UsageError(f"the packets of this stream have {most} layers: --layers is 1 to {most}, not {layers}")
    return Cut(records, cut, start, after)


def first_layers(packet: Packet, layers: int, version: int) -> Packet:
    """A packet as if only its first ``layers`` layers had arrived; ``size`` is that of these.

    version: of the format that it was written in.
    """
    size = packet.size - format_of(version).bytes_behind(packet, layers)
    return replace(packet, chunks=packet.chunks[: packet.count_chunks(layers)], layers_present=layers, size=size)


def _copy(source: BinaryIO, target: IO[bytes], start: int, end: int) -> int:
    """Bytes from ``start`` to ``end``, where the source is left; how many these are."""
    source.seek(start)
    for at in range(start, end, _BLOCK):
        part = source.read(min(_BLOCK, end - at))
        if len(part) < min(_BLOCK, end - at):
            raise StreamError("the file became shorter while it was read; cut it again")
        target.write(part)
    return end - start
