"""The bytes of a semcodec stream: one header, then one record a sample. ``docs/container.md`` has every byte.

Every part is checked before it is believed: header, record heads and chunks each carry a CRC-32, every declared
size has a bound, and memory is taken as bytes arrive, never as a length field promises.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, BinaryIO

import msgspec

from semcodec.container.header import (
    FORMAT,
    MAGIC,
    StreamHeader,
    check_versions,
    check_weights,
    read_header,
    write_header,
)
from semcodec.container.primitives import (
    Scalar,
    checksum,
    exactly,
    packer,
    read,
    read_varint,
    truncated,
    unpack,
    varint,
)
from semcodec.errors import CorruptStream, TruncatedStream, UsageError

__all__ = [
    "FORMAT",
    "MAGIC",
    "Chunk",
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

MAX_HEAD = 1 << 16
MAX_CHUNKS = 1 << 12
MAX_PACKET = 1 << 30
PACKET, LOCAL, CUT = b"P", b"L", b"C"
SIDE, ENDS_LAYER = 1, 2  # chunk flags: the two low bits of a table entry


@dataclass(frozen=True)
class Part:
    """A chunk to be written. ``ends_layer``: a stream cut after it still decodes."""

    name: str
    data: bytes
    side: bool = False
    ends_layer: bool = False


@dataclass(frozen=True)
class Chunk:
    """A chunk that was read. Its bytes come out only through ``verify``, which needs the name it was written under."""

    sequence: int
    side: bool
    ends_layer: bool
    _data: bytes
    _crc: int
    _seed: int

    @property
    def size(self) -> int:
        """Bytes of data, without the CRC."""
        return len(self._data)

    def verify(self, name: str) -> bytes:
        """The data. Raises CorruptStream unless data, name and everything before it are as written."""
        if _chunk_crc(name, self._data, self._seed) != self._crc:
            raise CorruptStream(
                f"packet {self.sequence}: chunk {name!r} fails its checksum: the stream is damaged, "
                "or this Encoder reads its chunks otherwise than it wrote them"
            )
        return self._data


@dataclass(frozen=True)
class Packet:
    """One sample as received. ``params`` are all call parameters, ``overrides`` those the packet itself carries.

    layers_present < layers_total where the stream was cut at a layer's end, or layers were dropped. size: bytes
    received, head and CRCs too.
    """

    header_id: int
    sequence: int
    params: Mapping[str, Scalar]
    overrides: Mapping[str, Scalar]
    chunks: Sequence[Chunk]
    layers_present: int
    layers_total: int
    size: int


@dataclass(frozen=True)
class LocalRecord:
    """A sample that the gate kept on the device: its number, class index and probability (a float32 on the wire)."""

    sequence: int
    index: int
    probability: float


_overrides_decoder = msgspec.msgpack.Decoder(dict[Annotated[int, msgspec.Meta(ge=0)], Scalar])


def _chunk_crc(name: str, data: bytes, seed: int) -> int:
    # Running on from the head and the chunks before binds a chunk to its packet and its place; the NUL ends the name.
    return zlib.crc32(data, zlib.crc32(name.encode() + b"\0", seed))


# -- writing ---------------------------------------------------------------------------------------------------------


def _frame(marker: bytes, header: StreamHeader, sequence: int, rest: bytes) -> bytes:
    if not 0 <= sequence < 1 << 63:
        raise UsageError(f"a sequence number is 0 or more and below 2**63, not {sequence}")
    head = header.id.to_bytes(4, "little") + varint(sequence) + rest
    if len(head) > MAX_HEAD:
        raise UsageError(f"packet {sequence}: the head takes {len(head)} bytes, more than {MAX_HEAD}: use fewer chunks")
    framed = marker + varint(len(head)) + head
    return framed + checksum(framed)


def _overrides(header: StreamHeader, params: Mapping[str, Scalar]) -> bytes:
    """The parameters that differ from the header's, as msgpack by index; nothing where none does."""
    unknown = sorted(set(params) - set(header.params))
    if unknown:
        raise UsageError(f"the stream header has no call parameter {unknown[0]!r}: it has {list(header.params)}")
    try:
        # Compared as bytes, so that 1, 1.0 and True are three values.
        changed = {
            index: params[name]
            for index, (name, default) in enumerate(header.params.items())
            if name in params and packer.encode(params[name]) != packer.encode(default)
        }
        packed = packer.encode(changed) if changed else b""
        if packed:
            unpack(_overrides_decoder, packed)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"these call parameters cannot be written: {error}") from error
    return packed


def write_packet(header: StreamHeader, sequence: int, params: Mapping[str, Scalar], parts: Sequence[Part]) -> bytes:
    """One packet: a head and ``parts`` in order. ``params``: call parameters by name; one left out is the header's."""
    if len(parts) > MAX_CHUNKS:
        raise UsageError(f"packet {sequence}: {len(parts)} chunks, more than {MAX_CHUNKS}: merge some")
    if sum(len(part.data) for part in parts) > MAX_PACKET:
        raise UsageError(f"packet {sequence}: more than {MAX_PACKET} bytes of data")
    table = [len(part.data) << 2 | part.side * SIDE | part.ends_layer * ENDS_LAYER for part in parts]
    rest = varint(len(parts)) + b"".join(map(varint, table)) + _overrides(header, params)
    out = [_frame(PACKET, header, sequence, rest)]
    seed = int.from_bytes(out[0][-4:], "little")
    for part in parts:
        seed = _chunk_crc(part.name, part.data, seed)
        out += [part.data, seed.to_bytes(4, "little")]
    return b"".join(out)


def cut_mark(layers: int) -> bytes:
    """What goes before a packet of which the first ``layers`` follow, and no more."""
    mark = CUT + varint(layers)
    return mark + checksum(mark)


def write_local(header: StreamHeader, record: LocalRecord) -> bytes:
    """One LOCAL record; its length is ``bytes_local``."""
    if not 0 <= record.index < 1 << 63 or not 0 <= record.probability <= 1:
        raise UsageError(f"a local answer is a class index and a probability, not {record.index}, {record.probability}")
    return _frame(LOCAL, header, record.sequence, varint(record.index) + struct.pack("<f", record.probability))


# -- reading ---------------------------------------------------------------------------------------------------------


def read_packets(stream: BinaryIO, header: StreamHeader) -> Iterator[Packet | LocalRecord]:
    """The records that follow ``header``, one at a time as they are asked for.

    A chunk's own checksum is tested when it is read by name, see ``Chunk.verify``. Raises CorruptStream and
    TruncatedStream; only a cut at the end of a layer, or after a whole record, is no error.
    """
    header_id, records = header.id, 0
    while marker := read(stream, 1):
        what = f"the head of record {records}"
        layers = None
        if marker == CUT:
            layers, marker = _cut(stream, what), read(stream, 1)
            if marker != PACKET:
                raise CorruptStream(f"record {records} is cut to {layers} layers and no packet: the stream is damaged")
        if marker not in (PACKET, LOCAL):
            raise CorruptStream(f"record {records} begins with the unknown marker {marker!r}: the stream is damaged")
        length = read_varint(stream, what)
        if length > MAX_HEAD:
            raise CorruptStream(f"{what} says it has {length} bytes, more than {MAX_HEAD}: the stream is damaged")
        framed = marker + varint(length) + exactly(stream, length, what)
        if exactly(stream, 4, what) != checksum(framed):
            raise CorruptStream(f"{what} fails its checksum: the stream is damaged; fetch or encode it again")
        head = io.BytesIO(framed[len(framed) - length :])
        try:
            if int.from_bytes(exactly(head, 4, what), "little") != header_id:
                raise CorruptStream(f"record {records} belongs to another stream: its header id is not this header's")
            sequence = read_varint(head, what)
            if marker == LOCAL:
                local = _local(head, sequence, what)
            else:
                table, overrides = _packet_head(head, header, what)
        except TruncatedStream as error:
            raise CorruptStream(f"{what} is shorter than what it lists: the stream is damaged") from error
        yield local if marker == LOCAL else _packet(stream, header, sequence, table, overrides, framed, layers)
        records += 1
    if not records:
        raise TruncatedStream("the stream ends after its header, without a packet: fetch or encode it again")


def _local(head: BinaryIO, sequence: int, what: str) -> LocalRecord:
    index = read_varint(head, what)
    (probability,) = struct.unpack("<f", exactly(head, 4, what))
    if head.read(1) or not 0 <= probability <= 1:
        raise CorruptStream(f"{what} holds no class and probability: the stream is damaged")
    return LocalRecord(sequence, index, probability)


def _packet_head(head: BinaryIO, header: StreamHeader, what: str) -> tuple[list[int], dict[str, Scalar]]:
    """The chunk table, a number a chunk (size << 2 | flags), and the call parameters that the packet overrides."""
    count = read_varint(head, what)
    if count > MAX_CHUNKS:
        raise CorruptStream(f"{what} lists {count} chunks, more than {MAX_CHUNKS}: the stream is damaged")
    table = [read_varint(head, what) for _ in range(count)]
    if sum(entry >> 2 for entry in table) > MAX_PACKET:
        raise CorruptStream(f"{what} lists more than {MAX_PACKET} bytes of chunks: the stream is damaged")
    packed, names = head.read(), list(header.params)
    try:
        changed = unpack(_overrides_decoder, packed) if packed else {}
        if packed and (not changed or list(changed) != sorted(changed)):
            raise ValueError("they are not in order")
        return table, {names[index]: value for index, value in changed.items()}
    except (ValueError, IndexError) as error:
        raise CorruptStream(f"{what} has call parameters that do not fit the stream header: {error}") from error


def _cut(stream: BinaryIO, what: str) -> int:
    """The layers that are there of the packet that follows."""
    layers = read_varint(stream, what)
    if exactly(stream, 4, what) != cut_mark(layers)[-4:]:
        raise CorruptStream(f"the mark before {what} fails its checksum: the stream is damaged; fetch or cut it again")
    return layers


def _packet(
    stream: BinaryIO,
    header: StreamHeader,
    sequence: int,
    table: list[int],
    overrides: dict[str, Scalar],
    framed: bytes,
    layers: int | None,
) -> Packet:
    ends = [bool(entry & ENDS_LAYER) for entry in table]
    # Chunks after the last marked end are a layer too; a packet that marks none is one layer.
    total = max(1, sum(ends) + (bool(ends) and not ends[-1]))
    if layers is not None and not 1 <= layers < total:
        raise CorruptStream(f"packet {sequence} says that {layers} of its {total} layers are there")
    chunks: list[Chunk] = []
    seed, size = zlib.crc32(framed), len(framed) + 4 + (len(cut_mark(layers)) if layers else 0)
    for entry in table:
        if layers is not None and sum(chunk.ends_layer for chunk in chunks) == layers:
            break
        data = read(stream, entry >> 2)
        crc = read(stream, 4)
        if not data and not crc and chunks and chunks[-1].ends_layer:
            break
        if len(data) < entry >> 2 or len(crc) < 4:
            truncated(f"packet {sequence}, chunk {len(chunks) + 1} of {len(table)}")
        after = int.from_bytes(crc, "little")
        chunks.append(Chunk(sequence, bool(entry & SIDE), bool(entry & ENDS_LAYER), data, after, seed))
        seed, size = after, size + len(data) + 4
    present = total if len(chunks) == len(table) else sum(chunk.ends_layer for chunk in chunks)
    params = {**header.params, **overrides}
    return Packet(header.id, sequence, params, overrides, tuple(chunks), present, total, size)


def read_stream(source: bytes | BinaryIO) -> tuple[StreamHeader, Iterator[Packet | LocalRecord]]:
    """Header and records of a whole stream: ``read_header`` then ``read_packets``."""
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    header = read_header(stream)
    return header, read_packets(stream, header)
