"""Format 2: its documented bytes, what damage and forgery leave of it, cuts, and that it costs less than format 1."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import msgspec
import pytest
from damage import flipped, mutated, outcome
from two_layers import HEADER as FIRST
from two_layers import packet, read_all, stream, values, varint

from semcodec.container.packets import (
    CurrentHeader,
    LocalRecord,
    Part,
    cut_mark,
    read_packets,
    read_stream,
    write_header,
    write_local,
    write_packet,
)
from semcodec.container.summary import summarise
from semcodec.container.truncation import cut_stream
from semcodec.errors import CorruptStream, SemcodecError, StreamError, TruncatedStream, UsageError

HEADER = CurrentHeader(**msgspec.structs.asdict(FIRST))
DATA = stream(HEADER)
START = len(write_header(HEADER))
BODY = DATA[9 : START - 4]
WHOLE = read_all(DATA)
OTHER = stream(msgspec.structs.replace(HEADER, weights={"encoder": "ffffffff"}))
ALLOWED = [
    *WHOLE,
    *((*row[:2], 1, 2, [v & 0xF0 for v in row[4]]) for row in WHOLE if row[0] == "packet" and row[3] == 2),
]
HIGH, LOW = "high", "low"


def seal(head: bytes, layers: list[list[tuple[str, bytes]]], body: bytes = BODY) -> bytes:
    """A record after docs/container.md, without the package: its first bytes, then layers of (name, data)."""
    header = b"SEMC\x02" + struct.pack("<I", len(body)) + body
    running = zlib.crc32(head, zlib.crc32(struct.pack("<I", zlib.crc32(header))))
    out = head
    for layer in layers:
        names = b"".join(name.encode() + b"\0" for name, _ in layer)
        data = b"".join(data for _, data in layer) + hashlib.blake2b(names, digest_size=1).digest()
        running = zlib.crc32(data, running)
        out += data + struct.pack("<I", running)
    return out if layers else out + struct.pack("<I", running)


def signed(records: list[tuple[bytes, list[list[tuple[str, bytes]]]]], body: bytes = BODY) -> bytes:
    header = b"SEMC\x02" + struct.pack("<I", len(body)) + body
    return header + struct.pack("<I", zlib.crc32(header)) + b"".join(seal(*record, body) for record in records)


def layers_of(seed: int, count: int = 2) -> list[list[tuple[str, bytes]]]:
    sent = values(seed).astype("<i4")
    low = [[(LOW, (sent & 15).tobytes())]] if count == 2 else []
    return [[("count", struct.pack("<H", sent.size)), (HIGH, (sent >> 4).tobytes())], *low]


TABLE = bytes([2 << 2 | 1, 20 << 2 | 2, 20 << 2 | 2])
RECORDS = [
    (b"P\x00" + varint(3 << 1) + TABLE, layers_of(0)),
    (b"P\x01" + varint(2 << 1 | 1) + TABLE[:2] + b"\x03\x81\x00\x01", layers_of(1, 1)),
    (b"L" + varint(200) + b"\x03" + struct.pack("<f", 0.75), []),
    (b"P" + varint(300) + varint(3 << 1 | 1) + TABLE + b"\x04\x81\x01\xa1n", layers_of(300)),
]


# -- the documented bytes --------------------------------------------------------------------------------------------


def test_bytes_are_as_documented():
    assert signed(RECORDS) == DATA
    assert read_all(stream()) == WHOLE


def test_the_example_of_the_description():
    text = (Path(__file__).parents[2] / "docs" / "container.md").read_text()
    text = text.split("## Format 2")[1].split("## Example")[0]
    data = bytes.fromhex("".join(line for line in text.splitlines() if line.startswith("    ")))
    header = CurrentHeader(
        "jpeg+resnet50", {"encoder/jpeg": 1}, {}, {"image": ((3, 224, 224), "uint8")}, {"quality": 75}, "0.1.0"
    )
    layered = [Part("picture", b"jpg", ends_layer=True), Part("more", b"!", side=True)]
    assert data.hex(" ") == b"".join(
        (
            write_header(header)[-4:],
            write_packet(header, 0, {}, [Part("picture", b"JPEG")]),
            write_packet(header, 1, {"quality": 40}, layered),
            write_local(header, LocalRecord(2, 7, 0.5)),
        )
    ).hex(" ")


def test_it_costs_less_than_format_1():
    parts = [Part("z", b"z" * 20, side=True), Part("y", b"y" * 50, ends_layer=True)]
    cost = {
        header.format: [len(write_packet(header, number, {}, parts)) - 70 for number in (0, 1000)]
        for header in (FIRST, HEADER)
    }
    assert cost == {1: [23, 24], 2: [11, 12]}
    assert [len(write_local(header, LocalRecord(9, 3, 0.5))) for header in (FIRST, HEADER)] == [16, 11]


def test_a_summary_counts_every_byte():
    found = summarise(DATA)
    assert (found["format"], found["file_bytes"]) == (2, len(DATA))
    first = found["records"][0]
    assert first["bytes_total"] == len(packet(0, HEADER)) == first["bytes_header"] + 42


# -- damage ------------------------------------------------------------------------------------------------------------


def test_every_byte_flipped_by_every_mask():
    survived = [
        (position, mask)
        for position in range(len(DATA))
        for mask in range(1, 256)
        if outcome(flipped(DATA, position, mask)) is not None
    ]
    assert survived == []


@pytest.mark.parametrize("cases", [10_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_random_edits_and_splices(cases):
    draw = random.Random(0)
    for number in range(cases):
        joined = DATA[: draw.randrange(START, len(DATA) + 1)] + draw.choice((DATA, OTHER))[draw.randrange(len(DATA)) :]
        found = outcome(mutated(DATA, draw) if number % 2 else joined)
        assert found is None or all(row in ALLOWED for row in found)


@pytest.mark.parametrize("cases", [10_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_signed_damage_takes_neither_another_form_nor_memory(cases):
    """Whose checksums all hold: it may read as other values, within twice the file's memory."""
    draw, read = random.Random(0), 0
    streams = []
    for _ in range(cases):
        records = [(head, [list(layer) for layer in layers]) for head, layers in RECORDS]
        at, body = draw.randrange(len(records)), BODY
        head, layers = records[at]
        what = draw.randrange(4)
        if what == 0:
            body = mutated(body, draw)
        elif what == 1:
            records[at] = (mutated(head, draw), layers)
        elif layers:
            layer = draw.choice(layers)
            place = draw.randrange(len(layer))
            name, data = layer[place]
            layer[place] = (draw.choice((name, LOW)), draw.randbytes(len(data)) if what == 2 else mutated(data, draw))
        streams.append(signed(records, body))
    tracemalloc.start()
    try:
        for data in streams:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            found = outcome(data)
            assert tracemalloc.get_traced_memory()[1] - before < 2 * len(data) + 50_000
            read += found is not None and found != WHOLE
    finally:
        tracemalloc.stop()
    assert read > cases * 0.02


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"P\0" + varint(4097 << 1) + b"\0" * 4097, "lists 4097 chunks"),
        (b"P\0\x02" + varint((2**30 + 1) << 2), "more than 1073741824 bytes"),
        (b"P\0\x01\0", "0 bytes of call parameters"),
        (b"P\0\x01" + varint(1 << 20), "1048576 bytes of call parameters"),
        (b"P\0\x80\0", "shortest form"),
        (b"L\0\0" + struct.pack("<f", 1.5), "no class and probability"),
        (b"L\0\0" + struct.pack("<f", float("nan")), "no class and probability"),
        (b"Q\0\0", "unknown marker"),
    ],
)
def test_a_signed_head_of_the_wrong_form(head, reason):
    with pytest.raises(CorruptStream, match=reason):
        list(read_stream(signed([(head, [])]))[1])


@pytest.mark.parametrize("own", [b"\x80", b"\x81\x02\x01", b"\x82\x01\x01\x00\x01", b"\x81\x00\x90", b"\xc1"])
def test_signed_call_parameters_of_the_wrong_form(own):
    with pytest.raises(CorruptStream, match="call parameters"):
        list(read_stream(signed([(b"P\0\x01" + varint(len(own)) + own, [[]])]))[1])


def test_records_of_another_stream_are_refused():
    other = msgspec.structs.replace(HEADER, spec="other")
    for record in (packet(1, other), write_local(other, LocalRecord(1, 1, 0.5))):
        with pytest.raises(CorruptStream, match=r"record 1 fails its checksum: .* belongs to another stream"):
            read_all(write_header(HEADER) + packet(0, HEADER) + record)


def test_other_names_are_refused_by_the_last_of_a_layer():
    data = write_header(HEADER) + write_packet(HEADER, 0, {}, [Part("a", b"one"), Part("b", b"two", ends_layer=True)])
    [found] = read_stream(data)[1]
    assert [chunk.verify(name) for chunk, name in zip(found.chunks, "ab", strict=True)] == [b"one", b"two"]
    for names in (("a", "c"), ("b", "a"), ("ab", "")):
        [found] = read_stream(data)[1]
        found.chunks[0].verify(names[0])
        with pytest.raises(CorruptStream, match="otherwise than it wrote them"):
            found.chunks[1].verify(names[1])


# -- cuts and sizes ----------------------------------------------------------------------------------------------------


def test_a_cut_is_an_error_unless_it_is_at_the_end_of_a_layer_or_record():
    sizes = [len(seal(*record)) for record in RECORDS]
    starts = [START + sum(sizes[:number]) for number in range(len(sizes) + 1)]
    low = 4 * 5 + 5  # five raw symbols and what ends a layer
    layer_ends = {starts[1] - low: 0, starts[4] - low: 3}
    for end in range(len(DATA)):
        if end in layer_ends:
            index = layer_ends[end]
            kind, sequence, _, _, read = WHOLE[index]
            assert read_all(DATA[:end]) == [*WHOLE[:index], (kind, sequence, 1, 2, [v & 0xF0 for v in read])]
        elif end in starts[1:]:
            assert read_all(DATA[:end]) == WHOLE[: starts.index(end)]
        else:
            with pytest.raises(TruncatedStream, match="ends"):
                read_all(DATA[:end])


def test_damage_to_a_later_layer_leaves_the_first():
    for at in range(1, 26):
        data = bytearray(packet(0, HEADER))
        data[-at] ^= 1
        [found] = read_packets(io.BytesIO(bytes(data)), HEADER)
        assert found.chunks[0].verify("count") == struct.pack("<H", 5)
        assert len(found.chunks[1].verify(HIGH)) == 20
        with pytest.raises(CorruptStream, match="'low' fails its checksum"):
            found.chunks[2].verify(LOW)


@pytest.mark.parametrize("layers", [1, 2])
def test_layers_are_cut_without_decoding(layers):
    parts = [Part(f"{n}{m}", bytes([n, m]) * 9, ends_layer=m == 1) for n in range(3) for m in range(2)]
    data = write_header(HEADER) + write_packet(HEADER, 4, {}, parts) + write_local(HEADER, LocalRecord(9, 1, 0.5))
    out = io.BytesIO()
    done = cut_stream(io.BytesIO(data), out, layers)
    left = out.getvalue()
    assert (done.before, done.after, len(left)) == (len(data), len(left), len(data) + 6 - (3 - layers) * (36 + 5))
    cut, local = read_stream(left)[1]
    assert (cut.layers_present, cut.layers_total, cut.mark, local.index) == (layers, 3, 6, 1)
    assert [chunk.verify(part.name) for chunk, part in zip(cut.chunks, parts, strict=False)] == [
        part.data for part in parts[: 2 * layers]
    ]
    for wrong in (0, 3, 4):
        forged = left[: len(write_header(HEADER))] + cut_mark(wrong) + left[len(write_header(HEADER)) + 6 :]
        with pytest.raises(StreamError):
            list(read_stream(forged)[1])


@pytest.mark.parametrize("claim", [varint(2**30 << 2), varint(2**27 << 2) * 8])
def test_a_false_length_takes_no_memory(claim):
    count = 1 if len(claim) == 5 else 8
    data = write_header(HEADER) + b"P\0" + varint(count << 1) + claim + b"x" * 50
    tracemalloc.start()
    try:
        with pytest.raises(SemcodecError):
            list(read_stream(data)[1])
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "write",
    [
        lambda: write_packet(HEADER, -1, {}, []),
        lambda: write_packet(HEADER, 0, {"levels": 1}, []),
        lambda: write_packet(HEADER, 0, {"layers": "x" * 70000}, []),
        lambda: write_packet(HEADER, 0, {}, [Part("a", b"")] * 4097),
        lambda: write_local(HEADER, LocalRecord(0, -1, 0.5)),
        lambda: write_local(HEADER, LocalRecord(-1, 1, 0.5)),
    ],
)
def test_what_could_not_be_read_is_not_written(write):
    with pytest.raises(UsageError):
        write()
