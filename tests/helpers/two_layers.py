"""A two-layer codec in numpy, an entropy stage without any cleverness, and a stream of both: fixtures, no tests.

``sign`` writes a stream after docs/container.md without using the package, so that tests can also forge one whose
checksums all hold.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from semcodec.container.packets import LocalRecord, Packet, StreamHeader, read_stream, write_header, write_local
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.errors import CorruptStream
from semcodec.interfaces import EntropyStage, Latent, Sink, Source
from semcodec.priors import Bits, Counted

HEADER = StreamHeader(
    spec="two-layers:levels=4+raw+toy",
    components={"encoder/two-layers": 1, "entropy/raw": 1},
    weights={"encoder": "0123abcd"},
    input={"x": ((3, None), "float32")},
    params={"layers": 2, "note": None},
    package="0.1.0",
)


class RawStage(EntropyStage):
    """Four bytes a symbol; remembers what it was given to decode."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def encode(self, symbols, prior):
        return symbols.astype("<i4").tobytes()

    def decode(self, data, prior, count):
        self.seen.append(data)
        if len(data) != 4 * count:
            raise CorruptStream(f"{len(data)} bytes are not {count} symbols")
        return np.frombuffer(data, "<i4").astype(np.int32)


class TwoLayers:
    """uint8 values: the four high bits, then the four low bits. The count goes before both, as a side blob."""

    def write(self, latent: Latent, sink: Sink, layers: int = 2) -> None:
        values = latent.symbols["values"].astype(np.int32)
        sink.blob("count", struct.pack("<H", values.size), side=True)
        sink.symbols("high", values >> 4, Counted())
        sink.layer()
        if layers == 2:
            sink.symbols("low", values & 15, Bits(4))
            sink.layer()

    def read(self, source: Source) -> Latent:
        data = source.blob("count", 2)
        if len(data) != 2:
            raise CorruptStream("the count has two bytes")
        (count,) = struct.unpack("<H", data)
        values = source.symbols("high", count, Counted()) << 4
        if source.layer() and source.params["layers"] == 2:
            values = values | source.symbols("low", count, Bits(4))
            source.layer()
        return Latent({"values": values})


def values(seed: int, count: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)


def packet(seed: int, header: StreamHeader = HEADER, count: int = 5, **params: object) -> bytes:
    sink = PacketSink(RawStage())
    TwoLayers().write(Latent({"values": values(seed, count)}), sink, params.get("layers", 2))
    return sink.pack(header, seed, params).data


def stream(header: StreamHeader = HEADER) -> bytes:
    """A header, three packets (the second of one layer, the third with a note) and a LOCAL record between."""
    records = [
        packet(0, header),
        packet(1, header, layers=1),
        write_local(header, LocalRecord(200, 3, 0.75)),
        packet(300, header, note="n"),
    ]
    return write_header(header) + b"".join(records)


def read_all(data: bytes, stage: EntropyStage | None = None) -> list[tuple]:
    """Everything a stream says: ("packet", sequence, present, total, values) and ("local", sequence, index)."""
    found: list[tuple] = []
    stage = stage or RawStage()
    for record in read_stream(data)[1]:
        if isinstance(record, Packet):
            # A stream's own parameters are not to be trusted: the codec has its defaults.
            source = PacketSource(record, stage, {**HEADER.params, **record.params})
            latent = TwoLayers().read(source)
            source.finish()
            read = latent.symbols["values"].tolist()
            found.append(("packet", record.sequence, record.layers_present, record.layers_total, read))
        else:
            found.append(("local", record.sequence, record.index))
    return found


def varint(value: int) -> bytes:
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + varint(value >> 7)


def crc(data: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(data))


def sign(body: bytes, records: Sequence[tuple[bytes, bytes, Sequence[tuple[str, bytes]]]], version: int = 1) -> bytes:
    """A stream with right checksums. A record: marker, head without its header id, chunks as (name, data)."""
    header = b"SEMC" + bytes([version]) + struct.pack("<I", len(body)) + body
    header += crc(header)
    out = header
    for marker, rest, chunks in records:
        head = header[-4:] + rest
        covered = marker + varint(len(head)) + head
        out += covered + crc(covered)
        # The running CRC continues over the stored value, not over the bytes of it.
        running = zlib.crc32(covered)
        for name, data in chunks:
            running = zlib.crc32(name.encode() + b"\0" + data, running)
            out += data + struct.pack("<I", running)
    return out
