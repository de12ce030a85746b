"""A stream's bytes: the documented layout, what is refused and by which name, what a cut leaves."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from two_layers import HEADER, crc, packet, read_all, sign, stream, values, varint

from semcodec.container.packets import (
    LocalRecord,
    Part,
    StreamHeader,
    check_versions,
    check_weights,
    read_header,
    read_packets,
    read_stream,
    write_header,
    write_local,
    write_packet,
)
from semcodec.container.summary import summarise
from semcodec.errors import CorruptStream, SemcodecError, TruncatedStream, UsageError, VersionMismatch, WeightsMismatch

BODY = write_header(HEADER)[9:-4]


def records(data: bytes) -> list:
    return list(read_stream(data)[1])


# -- the documented bytes --------------------------------------------------------------------------------------------


def test_header_bytes_are_as_documented():
    data = write_header(HEADER)
    assert data[:5] == b"SEMC\x01"
    assert struct.unpack("<I", data[5:9])[0] == len(data) - 13
    assert msgspec.msgpack.decode(data[9:-4]) == {
        "spec": "two-layers:levels=4+raw+toy",
        "components": {"encoder/two-layers": 1, "entropy/raw": 1},
        "weights": {"encoder": "0123abcd"},
        "input": {"x": [[3, None], "float32"]},
        "params": {"layers": 2, "note": None},
        "package": "0.1.0",
    }
    assert data[-4:] == crc(data[:-4]) == struct.pack("<I", HEADER.id)


def test_header_comes_back():
    stream = io.BytesIO(write_header(HEADER) + b"P")
    assert read_header(stream) == HEADER
    assert stream.read() == b"P"


def test_packet_bytes_are_as_documented():
    parts = [Part("mask", b"ab", side=True), Part("é", b"", ends_layer=True), Part("y", b"c" * 40)]
    rest = varint(300) + b"\x03" + bytes([2 << 2 | 1, 0 << 2 | 2]) + varint(40 << 2) + b"\x81\x01\xa1n"
    chunks = [(part.name, part.data) for part in parts]
    expected = sign(BODY, [(b"P", rest, chunks)])
    assert write_header(HEADER) + write_packet(HEADER, 300, {"layers": 2, "note": "n"}, parts) == expected
    (found,) = records(expected)
    assert (found.sequence, found.params, found.overrides) == (300, {"layers": 2, "note": "n"}, {"note": "n"})
    assert [(c.verify(p.name), c.side, c.ends_layer) for c, p in zip(found.chunks, parts, strict=True)] == [
        (p.data, p.side, p.ends_layer) for p in parts
    ]
    assert (found.layers_present, found.layers_total) == (2, 2)
    assert found.size == len(expected) - len(write_header(HEADER))


def test_local_bytes_are_as_documented():
    record = LocalRecord(5, 1000, 0.25)
    expected = sign(BODY, [(b"L", varint(5) + varint(1000) + struct.pack("<f", 0.25), [])])
    assert write_header(HEADER) + write_local(HEADER, record) == expected
    assert records(expected) == [record]


def test_head_of_four_chunks_takes_at_most_thirty_bytes():
    parts = [Part(name, bytes(1200), side=i == 0) for i, name in enumerate("abcd")]
    data = write_packet(HEADER, 10_000, {"layers": 1}, parts)
    assert len(data) - sum(len(part.data) + 4 for part in parts) <= 30


def test_parameters_equal_to_the_headers_are_not_sent_and_types_are_kept():
    plain = write_packet(HEADER, 0, {}, [])
    assert write_packet(HEADER, 0, {"layers": 2, "note": None}, []) == plain
    for value in (True, 2.0, "2", None, -1, 2**64 - 1, 0.1):
        (found,) = records(write_header(HEADER) + write_packet(HEADER, 0, {"layers": value}, []))
        assert found.params["layers"] == value
        assert type(found.params["layers"]) is type(value)


def test_the_example_of_the_description():
    text = (Path(__file__).parents[2] / "docs" / "container.md").read_text().split("## Example")[1]
    data = bytes.fromhex("".join(line for line in text.splitlines() if line.startswith("    ")))
    header = StreamHeader(
        "jpeg+resnet50", {"encoder/jpeg": 1}, {}, {"image": ((3, 224, 224), "uint8")}, {"quality": 75}, "0.1.0"
    )
    layered = [Part("picture", b"jpg", ends_layer=True), Part("more", b"!", side=True)]
    assert data == b"".join(
        (
            write_header(header),
            write_packet(header, 0, {}, [Part("picture", b"JPEG")]),
            write_packet(header, 1, {"quality": 40}, layered),
            write_local(header, LocalRecord(2, 7, 0.5)),
        )
    )
    assert read_stream(data)[0] == header


# -- what is refused, and how it is called ---------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"SEMD" + write_header(HEADER)[4:], b"\0" * 100])
def test_another_file_is_not_a_semcodec_file(data):
    with pytest.raises(CorruptStream, match="not a semcodec file"):
        read_stream(data)


@pytest.mark.parametrize("version", [0, 3, 255])
def test_unknown_format_version(version):
    with pytest.raises(VersionMismatch, match=f"format version {version}, this semcodec reads 1"):
        read_stream(sign(BODY, [], version))


def test_component_versions_are_named():
    check_versions(HEADER, {"encoder/two-layers": (1, 2), "entropy/raw": (1,)})
    with pytest.raises(VersionMismatch, match=r"encoder/two-layers wrote stream version 1, .* reads 2, 3"):
        check_versions(HEADER, {"encoder/two-layers": (2, 3), "entropy/raw": (1,)})
    with pytest.raises(VersionMismatch, match="with entropy/raw"):
        check_versions(HEADER, {"encoder/two-layers": (1,)})
    with pytest.raises(VersionMismatch, match="recoverer/none"):
        check_versions(HEADER, {"encoder/two-layers": (1,), "entropy/raw": (1,), "recoverer/none": (1,)})


def test_weights_are_named():
    check_weights(HEADER, {"encoder": "0123abcd"})
    with pytest.raises(WeightsMismatch, match=r"encoder.*0123abcd.*ffffffff"):
        check_weights(HEADER, {"encoder": "ffffffff"})
    with pytest.raises(WeightsMismatch, match=r"encoder.*0123abcd.*no weights"):
        check_weights(HEADER, {})
    with pytest.raises(WeightsMismatch, match=r"recoverer.*no weights.*0123abcd"):
        check_weights(HEADER, {"encoder": "0123abcd", "recoverer": "0123abcd"})


def body(**changes: object) -> bytes:
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(BODY), **changes})


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        BODY[:-1],
        BODY + b"\0",
        body(extra=1),
        body(spec="a\x1b[2J"),
        body(spec="a\n"),
        body(components={"encoder/x\n": 1}),
        body(weights={"encoder": "0123abcd\n"}),
        body(**{"\x1b[2J": 1}),
        body(spec=3),
        body(components={"encoder/x": -1}),
        body(components={"encoder/x": "1"}),
        body(weights={"encoder": "no hex"}),
        body(input={"x": [[-1], "float32"]}),
        body(input={"x": [[1], "float33"]}),
        body(params={"layers": [1]}),
        body(params={"": 1}),
        body(spec="a").replace(b"\xa1a", b"\xa1\xff"),
        body(params={"a": 1}).replace(b"\xa1a\x01", b"\xa1a\xcc\x01"),
        b"\x91" * 5000,
        body(input={"x": [[], "float32"]}).replace(b"\xa1x\x92\x90", b"\xa1x\x92\xdd\xff\xff\xff\xff"),
    ],
)
def test_signed_header_of_the_wrong_form(damaged):
    with pytest.raises(CorruptStream, match="the stream header does not hold what it should") as caught:
        read_stream(sign(damaged, []))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("marker", "rest", "reason"),
    [
        (b"P", b"", "shorter than what it lists"),
        (b"P", b"\x80", "shorter than what it lists"),
        (b"P", b"\x80\x00\x00", "shortest form"),
        (b"P", b"\xff" * 9 + b"\x00", "above 2"),
        (b"P", b"\0\x02\x04", "shorter than what it lists"),
        (b"P", b"\0" + varint(4097) + b"\0" * 4097, "lists 4097 chunks"),
        (b"P", b"\0\x01" + varint((2**30 + 1) << 2), "more than 1073741824 bytes"),
        (b"P", b"\0\0\x80", "call parameters"),
        (b"P", b"\0\0\x81\x02\x01", "call parameters"),
        (b"P", b"\0\0\x82\x01\x01\x00\x01", "call parameters"),
        (b"P", b"\0\0\x81\x00\x90", "call parameters"),
        (b"P", b"\0\0\xdf\xff\xff\xff\xff", "call parameters"),
        (b"P", b"\0\0\xc1", "call parameters"),
        (b"L", b"\0\0\0\0\0", "shorter than what it lists"),
        (b"L", b"\0\0" + struct.pack("<f", float("nan")), "no class and probability"),
        (b"L", b"\0\0" + struct.pack("<f", 1.5), "no class and probability"),
        (b"L", b"\0\0" + struct.pack("<f", 0.5) + b"\0", "no class and probability"),
        (b"Q", b"\0\0", "unknown marker"),
    ],
)
def test_signed_head_of_the_wrong_form(marker, rest, reason):
    with pytest.raises(CorruptStream, match=reason):
        records(sign(BODY, [(marker, rest, [])]))


def test_packet_of_another_stream_is_refused():
    other = StreamHeader(spec="b", components={}, weights={}, input={}, params=HEADER.params)
    with pytest.raises(CorruptStream, match="record 1 belongs to another stream"):
        read_all(write_header(HEADER) + packet(0) + packet(1, other))


def test_chunk_of_another_packet_or_place_is_refused():
    ours, other = packet(0), packet(0, count=5)[:-24] + packet(7)[-24:]
    assert len(ours) == len(other)
    with pytest.raises(CorruptStream, match="'low' fails its checksum"):
        read_all(write_header(HEADER) + other)
    parts = [Part("y", b"one"), Part("y", b"two")]
    data = write_packet(HEADER, 0, {}, parts)
    swapped = data[:-14] + data[-7:] + data[-14:-7]
    (found,) = records(write_header(HEADER) + swapped)
    with pytest.raises(CorruptStream):
        [chunk.verify("y") for chunk in found.chunks]


def test_chunk_under_another_name_is_refused():
    (found,) = records(write_header(HEADER) + write_packet(HEADER, 0, {}, [Part("ab", b"c")]))
    for name in ("a", "abc", "AB", "ab\0", ""):
        with pytest.raises(CorruptStream, match="fails its checksum"):
            found.chunks[0].verify(name)
    assert found.chunks[0].verify("ab") == b"c"


@pytest.mark.parametrize(
    "write",
    [
        lambda: write_packet(HEADER, -1, {}, []),
        lambda: write_packet(HEADER, 0, {"levels": 1}, []),
        lambda: write_packet(HEADER, 0, {"layers": [1]}, []),
        lambda: write_packet(HEADER, 0, {"layers": 2**64}, []),
        lambda: write_packet(HEADER, 0, {"layers": "x" * 70000}, []),
        lambda: write_packet(HEADER, 0, {}, [Part("a", b"")] * 4097),
        lambda: write_local(HEADER, LocalRecord(0, -1, 0.5)),
        lambda: write_local(HEADER, LocalRecord(0, 0, float("nan"))),
        lambda: write_header(msgspec.structs.replace(HEADER, weights={"encoder": "NOT HEX"})),
        lambda: write_header(msgspec.structs.replace(HEADER, spec="x" * 70000)),
        lambda: write_header(msgspec.structs.replace(HEADER, input={"x": ((1,), "complex64")})),
        lambda: write_header(msgspec.structs.replace(HEADER, params={"a": object()})),
    ],
)
def test_what_could_not_be_read_is_not_written(write):
    with pytest.raises(UsageError):
        write()


# -- cuts ------------------------------------------------------------------------------------------------------------


def test_a_cut_is_an_error_unless_it_is_at_the_end_of_a_layer_or_record():
    data, whole = stream(), read_all(stream())
    sizes = [len(packet(0)), len(packet(1, layers=1)), 17, len(packet(300, note="n"))]
    starts = [len(write_header(HEADER))]
    for size in sizes:
        starts.append(starts[-1] + size)
    assert starts[-1] == len(data)
    low = 4 * 5 + 4  # five raw symbols and a CRC: the second layer of the first and the last packet
    layer_ends = {starts[1] - low: 0, starts[4] - low: 3}
    for cut in range(len(data)):
        if cut in layer_ends:
            index = layer_ends[cut]
            kind, sequence, _, _, read = whole[index]
            high = [value & 0xF0 for value in read]
            assert read_all(data[:cut]) == [*whole[:index], (kind, sequence, 1, 2, high)]
        elif cut in starts[1:]:
            assert read_all(data[:cut]) == whole[: starts.index(cut)]
        else:
            with pytest.raises(TruncatedStream, match="ends"):
                read_all(data[:cut])
    assert [row[2:4] for row in whole if row[0] == "packet"] == [(2, 2), (1, 1), (2, 2)]
    assert whole[0][4] == values(0).tolist()


def test_a_cut_packet_without_layers_is_truncated_everywhere():
    data = write_header(HEADER) + write_packet(HEADER, 0, {}, [Part("a", b"one"), Part("b", b"two")])
    for cut in range(len(data)):
        with pytest.raises(TruncatedStream):
            records(data[:cut])


def test_chunks_after_the_last_marked_layer_are_a_layer():
    parts = [Part("a", b"one", ends_layer=True), Part("b", b"two"), Part("c", b"three")]
    data = write_header(HEADER) + write_packet(HEADER, 0, {}, parts)
    last = 3 + 4 + 5 + 4
    assert [(p.layers_present, p.layers_total, len(p.chunks)) for p in records(data)] == [(2, 2, 3)]
    assert [(p.layers_present, p.layers_total, len(p.chunks)) for p in records(data[:-last])] == [(1, 2, 1)]
    for cut in range(1, last):
        with pytest.raises(TruncatedStream):
            records(data[:-cut])


def test_whole_packets_before_a_cut_are_read():
    found = read_packets(io.BytesIO((packet(0) + packet(1))[:-1]), HEADER)
    assert next(found).sequence == 0
    with pytest.raises(TruncatedStream, match="packet 1, chunk 3 of 3"):
        next(found)


# -- memory ----------------------------------------------------------------------------------------------------------


class Pipe:
    """A stream that cannot seek and that takes memory for whatever it is asked, as buffered readers do."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def read(self, count: int = -1) -> bytes:
        bytearray(count)
        return self._inner.read(min(count, 1000))


HUGE = varint(2**30 << 2)
CLAIMS = {
    "header": b"SEMC\x01\xff\xff\xff\xff",
    "header within its bound": b"SEMC\x01" + struct.pack("<I", 65536) + b"\x86",
    "text in the header": sign(b"\x81\xa4spec\xdb\xff\xff\xff\xff", []),
    "shape in the header": sign(b"\x81\xa5input\x81\xa1x\x92\xdd\x7f\xff\xff\xff\x01", []),
    "head": write_header(HEADER) + b"P" + varint(2**62),
    "chunk count": sign(BODY, [(b"P", b"\0" + varint(2**40), [])]),
    "chunk": sign(BODY, [(b"P", b"\0\x01" + HUGE, [])]) + b"x" * 50,
    "chunks": sign(BODY, [(b"P", b"\0\x64" + varint(2**27) * 100, [])]) + b"x" * 50,
    "overrides": sign(BODY, [(b"P", b"\0\0\xdf\xff\xff\xff\xff", [])]),
}


@pytest.mark.parametrize("wrap", [io.BytesIO, Pipe, "file"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_false_length_takes_no_memory(claim, wrap, tmp_path):
    (tmp_path / "claim.sem").write_bytes(CLAIMS[claim])
    source = (tmp_path / "claim.sem").open("rb") if wrap == "file" else wrap(CLAIMS[claim])
    tracemalloc.start()
    try:
        with pytest.raises(SemcodecError):
            list(read_stream(source)[1])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        if wrap == "file":
            source.close()
    assert peak < 300_000  # a read block, the reader's buffers and small objects


def test_a_large_packet_takes_no_more_than_twice_its_size():
    size = 8_000_000
    pipe = Pipe(write_packet(HEADER, 0, {}, [Part("a", bytes(size))]))
    tracemalloc.start()
    try:
        for record in read_packets(pipe, HEADER):
            assert len(record.chunks[0].verify("a")) == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size < peak < 2 * size


def test_packets_are_read_one_at_a_time():
    """A thousand packets of 100 kB pass through the memory of a few."""
    one = write_packet(HEADER, 0, {}, [Part("a", bytes(100_000))])

    class Endless:
        left = b""
        sent = 0

        def read(self, count: int) -> bytes:
            if not self.left and self.sent < 1000:
                self.left, self.sent = one, self.sent + 1
            block, self.left = self.left[:count], self.left[count:]
            return block

    tracemalloc.start()
    try:
        assert sum(1 for _ in read_packets(Endless(), HEADER)) == 1000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


# -- the summary -----------------------------------------------------------------------------------------------------


def test_summary_of_a_file(tmp_path):
    data = stream()
    path = tmp_path / "a.sem"
    path.write_bytes(data)
    found = summarise(path)
    assert found == summarise(data) == summarise(io.BytesIO(data))
    json.dumps(found)
    assert found["format"] == 1
    assert found["id"] == f"{HEADER.id:08x}"
    assert found["spec"] == HEADER.spec
    assert found["weights"] == HEADER.weights
    assert found["bytes_stream_header"] == len(write_header(HEADER))
    assert found["file_bytes"] == len(data)
    first, second, local, last = found["records"]
    assert (first["kind"], first["bytes_total"]) == ("packet", len(packet(0)))
    assert first["chunks"] == [
        {"bytes": 2, "side": True, "ends_layer": False},
        {"bytes": 20, "side": False, "ends_layer": True},
        {"bytes": 20, "side": False, "ends_layer": True},
    ]
    assert first["bytes_header"] == len(packet(0)) - 42
    assert second["params"] == {"layers": 1, "note": None}
    assert local == {"kind": "local", "sequence": 200, "index": 3, "probability": 0.75, "bytes_local": 17}
    assert last["params"] == {"layers": 2, "note": "n"}
    cut = summarise(data[:-24])
    assert (cut["records"][3]["layers_present"], cut["records"][3]["layers_total"]) == (1, 2)
    assert cut["file_bytes"] == len(data) - 24


def test_summary_needs_no_heavy_import():
    code = "import sys, semcodec.container.packets, semcodec.container.sinks; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "semcodec.container.sinks" in loaded
    assert not {"torch", "semcodec_plugins", "constriction"} & set(loaded)
