"""Format 1, byte for byte as ``docs/container.md`` has it: stream header, packets, LOCAL records and cut marks.

Every part is checked before it is believed: header, record heads and chunks each carry a CRC-32, every declared
size has a bound, and memory is taken as bytes arrive, never as a length field promises.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, BinaryIO, ClassVar, TypeVar

import msgspec

from semcodec.container.primitives import (
    MAGIC,
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
from semcodec.container.records import CheckedChunk, Chunk, LocalRecord, Packet, Part, chunk_crc
from semcodec.errors import CorruptStream, TruncatedStream, UsageError
from semcodec.specs import ITEM_BYTES, TensorSpec

MAX_HEADER = 1 << 16
MAX_HEAD = 1 << 16
MAX_CHUNKS = 1 << 12
MAX_PACKET = 1 << 30
PACKET, LOCAL, CUT = b"P", b"L", b"C"
SIDE, ENDS_LAYER = 1, 2  # chunk flags: the two low bits of a table entry

# Text that may reach a terminal has no control characters; \Z, since $ would let a line end pass.
Line = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,256}\Z")]
Version = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Dim = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{4,64}\Z")]


class StreamHeader(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """What holds for every packet of a stream. All that is written under a header is in the format of its class.

    format: the format's version. A later format's header is a subclass, with its own ``format`` and ``id``.
    spec: the canonical spec string.
    components: "kind/name" to the ``stream_version`` that wrote.
    weights: slot ("encoder", "recoverer", ...) to the short hex digest of what read, restore and recover use.
    input: input tensor name to (shape of one sample, dtype name).
    params: the call parameters in order, with the values of a packet that says nothing else.
    package: version of the package that wrote; information only.
    """

    format: ClassVar[int] = 1
    spec: Line
    components: dict[Name, Version]
    weights: dict[Name, Digest]
    input: dict[Name, tuple[tuple[Dim, ...], Name]]
    params: dict[Name, Scalar]
    package: Line = ""

    @cached_property
    def id(self) -> int:
        """The CRC-32 that ends the header and that every packet repeats."""
        return int.from_bytes(write_header(self)[-4:], "little")

    @property
    def input_spec(self) -> dict[str, TensorSpec]:
        return {name: TensorSpec(shape, dtype) for name, (shape, dtype) in self.input.items()}


Header = TypeVar("Header", bound=StreamHeader)
_decoder = msgspec.msgpack.Decoder(StreamHeader)
_overrides_decoder = msgspec.msgpack.Decoder(dict[Annotated[int, msgspec.Meta(ge=0)], Scalar])


def _header_body(body: bytes, decoder: msgspec.msgpack.Decoder[Header]) -> Header:
    header = unpack(decoder, body)
    for name, (_, dtype) in header.input.items():
        if dtype not in ITEM_BYTES:
            raise ValueError(f"input {name!r} has the unknown dtype {dtype!r}")
    return header


# -- the stream header -------------------------------------------------------------------------------------------------


def write_header(header: StreamHeader) -> bytes:
    """The stream header, behind the first bytes of its format. Raises UsageError where it could not be read back."""
    try:
        body = packer.encode(header)
        _header_body(body, _decoder)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"this stream header cannot be written: {error}") from error
    if len(body) > MAX_HEADER:
        raise UsageError(f"the stream header takes {len(body)} bytes, more than {MAX_HEADER}: shorten the spec")
    framed = _prefix(type(header)) + len(body).to_bytes(4, "little") + body
    return framed + checksum(framed)


def read_header(stream: BinaryIO) -> StreamHeader:
    """The header of a stream whose format was read. Raises CorruptStream and TruncatedStream."""
    return read_header_of(stream, StreamHeader, _decoder)


def _prefix(kind: type[StreamHeader]) -> bytes:
    return MAGIC + bytes([kind.format])


def read_header_of(stream: BinaryIO, kind: type[Header], decoder: msgspec.msgpack.Decoder[Header]) -> Header:
    """A header in this form, of the format of its class. Raises CorruptStream and TruncatedStream."""
    what = "the stream header"
    length = exactly(stream, 4, what)
    count = int.from_bytes(length, "little")
    if count > MAX_HEADER:
        raise CorruptStream(f"{what} says it has {count} bytes, more than {MAX_HEADER}: the stream is damaged")
    body = exactly(stream, count, what)
    if exactly(stream, 4, what) != checksum(_prefix(kind) + length + body):
        raise CorruptStream(f"{what} fails its checksum: the stream is damaged; fetch or encode it again")
    try:
        return _header_body(body, decoder)
    except ValueError as error:
        raise CorruptStream(f"{what} does not hold what it should: {error}") from error


# -- writing ---------------------------------------------------------------------------------------------------------


def _frame(marker: bytes, header: StreamHeader, sequence: int, rest: bytes) -> bytes:
    if not 0 <= sequence < 1 << 63:
        raise UsageError(f"a sequence number is 0 or more and below 2**63, not {sequence}")
    head = header.id.to_bytes(4, "little") + varint(sequence) + rest
    if len(head) > MAX_HEAD:
        raise UsageError(f"packet {sequence}: the head takes {len(head)} bytes, more than {MAX_HEAD}: use fewer chunks")
    framed = marker + varint(len(head)) + head
    return framed + checksum(framed)


def pack_overrides(header: StreamHeader, params: Mapping[str, Scalar]) -> bytes:
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


def pack_table(sequence: int, parts: Sequence[Part]) -> bytes:
    """A number a chunk: size << 2 | flags. Raises UsageError for more than a packet may hold."""
    if len(parts) > MAX_CHUNKS:
        raise UsageError(f"packet {sequence}: {len(parts)} chunks, more than {MAX_CHUNKS}: merge some")
    if sum(len(part.data) for part in parts) > MAX_PACKET:
        raise UsageError(f"packet {sequence}: more than {MAX_PACKET} bytes of data")
    return b"".join(varint(len(part.data) << 2 | part.side * SIDE | part.ends_layer * ENDS_LAYER) for part in parts)


def write_packet(header: StreamHeader, sequence: int, params: Mapping[str, Scalar], parts: Sequence[Part]) -> bytes:
    """One packet: a head and ``parts`` in order. ``params``: call parameters by name; one left out is the header's."""
    rest = varint(len(parts)) + pack_table(sequence, parts) + pack_overrides(header, params)
    out = [_frame(PACKET, header, sequence, rest)]
    seed = int.from_bytes(out[0][-4:], "little")
    for part in parts:
        seed = chunk_crc(part.name, part.data, seed)
        out += [part.data, seed.to_bytes(4, "little")]
    return b"".join(out)


def cut_mark(layers: int) -> bytes:
    """What goes before a packet of which the first ``layers`` follow, and no more."""
    mark = CUT + varint(layers)
    return mark + checksum(mark)


def bytes_behind(packet: Packet, layers: int) -> int:
    """Bytes of the chunks behind a packet's first ``layers``, with their checksums."""
    return sum(chunk.size + 4 for chunk in packet.chunks[packet.count_chunks(layers) :])


def write_local(header: StreamHeader, record: LocalRecord) -> bytes:
    """One LOCAL record; its length is ``bytes_local``."""
    return _frame(LOCAL, header, record.sequence, pack_answer(record))


def pack_answer(record: LocalRecord) -> bytes:
    """Class and probability. Raises UsageError where they could not be read back."""
    if not 0 <= record.index < 1 << 63 or not 0 <= record.probability <= 1:
        raise UsageError(f"a local answer is a class index and a probability, not {record.index}, {record.probability}")
    return varint(record.index) + struct.pack("<f", record.probability)


# -- reading ---------------------------------------------------------------------------------------------------------


def read_packets(stream: BinaryIO, header: StreamHeader) -> Iterator[Packet | LocalRecord]:
    """The records that follow ``header``, one at a time as they are asked for.

    A chunk's own checksum is tested when it is read by name, see ``Chunk.verify``. Raises CorruptStream and
    TruncatedStream; only a cut at the end of a layer, or after a whole record, is no error.
    """
    header_id = header.id
    for records, marker, layers in read_markers(stream):
        what = f"the head of record {records}"
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


def read_markers(stream: BinaryIO) -> Iterator[tuple[int, bytes, int | None]]:
    """Number and marker of each record, which is read between two of them, and the layers there of a cut packet.

    Raises CorruptStream for what begins no record, TruncatedStream where there is none at all.
    """
    records = 0
    while marker := read(stream, 1):
        layers = None
        if marker == CUT:
            layers, marker = _cut(stream, f"the head of record {records}"), read(stream, 1)
            if marker != PACKET:
                raise CorruptStream(f"record {records} is cut to {layers} layers and no packet: the stream is damaged")
        if marker not in (PACKET, LOCAL):
            raise CorruptStream(f"record {records} begins with the unknown marker {marker!r}: the stream is damaged")
        yield records, marker, layers
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
    """The chunk table, and the call parameters that the packet overrides."""
    return read_table(head, read_varint(head, what), what), read_overrides(head.read(), header, what)


def read_table(head: BinaryIO, count: int, what: str) -> list[int]:
    """A number a chunk: size << 2 | flags. Raises CorruptStream and TruncatedStream."""
    if count > MAX_CHUNKS:
        raise CorruptStream(f"{what} lists {count} chunks, more than {MAX_CHUNKS}: the stream is damaged")
    table = [read_varint(head, what) for _ in range(count)]
    if sum(entry >> 2 for entry in table) > MAX_PACKET:
        raise CorruptStream(f"{what} lists more than {MAX_PACKET} bytes of chunks: the stream is damaged")
    return table


def read_overrides(packed: bytes, header: StreamHeader, what: str) -> dict[str, Scalar]:
    """Call parameters by name, of what ``pack_overrides`` wrote. Raises CorruptStream."""
    names = list(header.params)
    try:
        changed = unpack(_overrides_decoder, packed) if packed else {}
        if packed and (not changed or list(changed) != sorted(changed)):
            raise ValueError("they are not in order")
        return {names[index]: value for index, value in changed.items()}
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
    mark = len(cut_mark(layers)) if layers else 0
    seed, size = zlib.crc32(framed), mark + len(framed) + 4
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
        chunks.append(CheckedChunk(sequence, bool(entry & SIDE), bool(entry & ENDS_LAYER), data, after, seed))
        seed, size = after, size + len(data) + 4
    present = total if len(chunks) == len(table) else sum(chunk.ends_layer for chunk in chunks)
    params = {**header.params, **overrides}
    return Packet(header.id, sequence, params, overrides, tuple(chunks), present, total, size, mark)
