"""Format 2, byte for byte as ``docs/container.md`` has it: that of format 1 with less beside the data.

The stream header is format 1's. A record has no checksum of its head and does not repeat the header's: one CRC-32 ends
each layer, and runs from the header's through all of the packet so far. Of names one byte a layer tells.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, ClassVar, cast

import msgspec

from semcodec.container import v1
from semcodec.container.primitives import Scalar, exactly, read, read_varint, truncated, varint
from semcodec.container.records import Chunk, LocalRecord, Packet, Part
from semcodec.container.v1 import (
    ENDS_LAYER,
    LOCAL,
    MAX_HEAD,
    PACKET,
    SIDE,
    cut_mark,
    pack_overrides,
    pack_table,
    read_markers,
    read_overrides,
    read_table,
    write_header,
)
from semcodec.errors import CorruptStream, UsageError

__all__ = [
    "StreamHeader",
    "bytes_behind",
    "cut_mark",
    "read_header",
    "read_packets",
    "write_header",
    "write_local",
    "write_packet",
]

ENDING = 5
"""Bytes that end a layer: one of its names, and a CRC-32."""
DAMAGED = "fails its checksum: the stream is damaged, or the record belongs to another stream; fetch or encode it again"


class StreamHeader(v1.StreamHeader, frozen=True, dict=True, forbid_unknown_fields=True):
    """As format 1's, of packets in format 2."""

    format: ClassVar[int] = 2


_decoder = msgspec.msgpack.Decoder(StreamHeader)


def read_header(stream: BinaryIO) -> v1.StreamHeader:
    """The header of a stream whose format was read. Raises CorruptStream and TruncatedStream."""
    return v1.read_header_of(stream, StreamHeader, _decoder)


# -- writing ---------------------------------------------------------------------------------------------------------


def _begin(marker: bytes, header: v1.StreamHeader, sequence: int) -> tuple[bytes, int]:
    """A record's first bytes, and the checksum that runs through it, which began with the header's."""
    if not 0 <= sequence < 1 << 63:
        raise UsageError(f"a sequence number is 0 or more and below 2**63, not {sequence}")
    return marker + varint(sequence), zlib.crc32(header.id.to_bytes(4, "little"))


def write_packet(header: v1.StreamHeader, sequence: int, params: Mapping[str, Scalar], parts: Sequence[Part]) -> bytes:
    """One packet: a head and ``parts`` in order. ``params``: call parameters by name; one left out is the header's."""
    begin, running = _begin(PACKET, header, sequence)
    own = pack_overrides(header, params)
    head = begin + varint(len(parts) << 1 | bool(own)) + pack_table(sequence, parts)
    head += varint(len(own)) + own if own else b""
    if len(head) > MAX_HEAD:
        raise UsageError(f"packet {sequence}: the head takes {len(head)} bytes, more than {MAX_HEAD}: use fewer chunks")
    out, running = [head], zlib.crc32(head, running)
    for layer in _layers([part.ends_layer for part in parts]):
        told = tell_names([part.name for part in parts[layer]])
        for data in (*(part.data for part in parts[layer]), told):
            out.append(data)
            running = zlib.crc32(data, running)
        out.append(running.to_bytes(4, "little"))
    return b"".join(out)


def write_local(header: v1.StreamHeader, record: LocalRecord) -> bytes:
    """One LOCAL record; its length is ``bytes_local``."""
    begin, running = _begin(LOCAL, header, record.sequence)
    framed = begin + v1.pack_answer(record)
    return framed + zlib.crc32(framed, running).to_bytes(4, "little")


def bytes_behind(packet: Packet, layers: int) -> int:
    """Bytes of the chunks behind a packet's first ``layers``, with what ends their layers."""
    left = sum(chunk.size for chunk in packet.chunks[packet.count_chunks(layers) :])
    return left + ENDING * (packet.layers_present - layers)


def tell_names(names: Sequence[str]) -> bytes:
    """One byte of the names of a layer's chunks, which do not travel: that of BLAKE2b."""
    return hashlib.blake2b(b"".join(name.encode() + b"\0" for name in names), digest_size=1).digest()


def _layers(ends: Sequence[bool]) -> list[slice]:
    """Where each layer's chunks are, by whether a chunk ends one; a packet without any chunk is one layer too."""
    bounds = [0, *(number for number, end in enumerate(ends, 1) if end)]
    if bounds[-1] < len(ends) or not ends:
        bounds.append(len(ends))
    return [slice(start, stop) for start, stop in pairwise(bounds)]


# -- reading ---------------------------------------------------------------------------------------------------------


class _Recorder:
    """A stream of which all that is read is kept for a checksum."""

    def __init__(self, stream: BinaryIO, begin: bytes) -> None:
        self.rest, self.seen = stream, bytearray(begin)
        self.file = cast(BinaryIO, self)  # of which reading is all that is asked

    def read(self, count: int = -1) -> bytes:
        data = self.rest.read(count)
        self.seen += data
        return data


@dataclass(frozen=True)
class LayerChunk(Chunk):
    """A chunk of a layer that ends in one checksum.

    intact: whether that holds, and those of the layers before. place: in its layer. told: of the last chunk, what tells
    the layer's names. names: the layer's, by place, as they become known by reading.
    """

    intact: bool
    place: int
    told: bytes
    names: dict[int, str]

    def holds(self, name: str) -> bool:
        """Whether the layer does, and by its last chunk all names too."""
        self.names[self.place] = name
        known = [self.names[place] for place in sorted(self.names)]
        return self.intact and (not self.told or tell_names(known) == self.told)


def read_packets(stream: BinaryIO, header: v1.StreamHeader) -> Iterator[Packet | LocalRecord]:
    """The records that follow ``header``, one at a time as they are asked for.

    A packet's first layer is tested here, later ones when they are read, see ``Chunk.verify``. Raises CorruptStream and
    TruncatedStream; only a cut at the end of a layer, or after a whole record, is no error.
    """
    begin = zlib.crc32(header.id.to_bytes(4, "little"))
    for records, marker, layers in read_markers(stream):
        what = f"record {records}"
        head = _Recorder(stream, marker)
        sequence = read_varint(head.file, what)
        if marker == LOCAL:
            yield _local(head, sequence, begin, what)
        else:
            yield _packet(head, header, sequence, begin, layers, what)


def _local(head: _Recorder, sequence: int, begin: int, what: str) -> LocalRecord:
    index = read_varint(head.file, what)
    (probability,) = struct.unpack("<f", exactly(head.file, 4, what))
    running = zlib.crc32(head.seen, begin)
    if exactly(head.file, 4, what) != running.to_bytes(4, "little"):
        raise CorruptStream(f"{what} {DAMAGED}")
    if not 0 <= probability <= 1:
        raise CorruptStream(f"{what} holds no class and probability: the stream is damaged")
    return LocalRecord(sequence, index, probability)


def _packet(
    head: _Recorder, header: v1.StreamHeader, sequence: int, begin: int, layers: int | None, what: str
) -> Packet:
    count = read_varint(head.file, what)
    table = read_table(head.file, count >> 1, what)
    packed = b""
    if count & 1:
        length = read_varint(head.file, what)
        if not 0 < length <= MAX_HEAD:
            raise CorruptStream(f"{what} says it has {length} bytes of call parameters: the stream is damaged")
        packed = exactly(head.file, length, what)
    stream, running, size = head.rest, zlib.crc32(head.seen, begin), len(head.seen)
    found = _layers([bool(entry & ENDS_LAYER) for entry in table])
    if layers is not None and not 1 <= layers < len(found):
        raise CorruptStream(f"packet {sequence} says that {layers} of its {len(found)} layers are there")
    mark = len(cut_mark(layers)) if layers else 0
    chunks: list[Chunk] = []
    present, intact = 0, True
    for part in found:
        if present == layers:
            break
        sizes = [entry >> 2 for entry in table[part]]
        datas = [read(stream, each) for each in sizes]
        ending = read(stream, ENDING)
        if present and not ending and not any(datas):
            break
        if len(ending) < ENDING or [len(data) for data in datas] != sizes:
            truncated(f"packet {sequence}, layer {present + 1} of {len(found)}")
        for data in (*datas, ending[:1]):
            running = zlib.crc32(data, running)
        intact = intact and ending[1:] == running.to_bytes(4, "little")
        if not present and not intact:
            raise CorruptStream(f"{what} {DAMAGED}")
        names: dict[int, str] = {}
        for place, (data, entry) in enumerate(zip(datas, table[part], strict=True)):
            told = ending[:1] if place == len(sizes) - 1 else b""
            flags = bool(entry & SIDE), bool(entry & ENDS_LAYER)
            chunks.append(LayerChunk(sequence, *flags, data, intact, place, told, names))
        present, size = present + 1, size + sum(sizes) + ENDING
    overrides = read_overrides(packed, header, what)
    params = {**header.params, **overrides}
    return Packet(header.id, sequence, params, overrides, tuple(chunks), present, len(found), mark + size, mark)
