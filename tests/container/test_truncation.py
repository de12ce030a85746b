"""Layers dropped from a stream without decoding it: what is left reads as if the others had not arrived."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import two_layers
from click.testing import CliRunner

from semcodec.cli import main
from semcodec.container.packets import (
    LocalRecord,
    Packet,
    StreamHeader,
    cut_mark,
    read_stream,
    write_header,
    write_local,
    write_packet,
)
from semcodec.container.packets import Part as Chunk
from semcodec.container.summary import summarise
from semcodec.container.truncation import cut_stream
from semcodec.container.v1 import CUT
from semcodec.errors import CorruptStream, StreamError, TruncatedStream, UsageError

HEADER = two_layers.HEADER


def layered(*layers: int, header: StreamHeader = HEADER) -> bytes:
    """A stream of packets with so many layers of two chunks, the last of three, and a LOCAL record at its end."""
    out = [write_header(header)]
    for number, count in enumerate(layers):
        parts = []
        for layer in range(count):
            parts += [Chunk(f"a{layer}", bytes([layer]) * (10 + 40 * layer), side=layer == 0)]
            parts += [Chunk(f"b{layer}", b"xyz" * (number + 1), ends_layer=True)]
        out.append(write_packet(header, number, {}, parts))
    return b"".join([*out, write_local(header, LocalRecord(9, 1, 0.5))])


def cut(data: bytes, layers: int) -> bytes:
    target = io.BytesIO()
    done = cut_stream(io.BytesIO(data), target, layers)
    assert (done.before, done.after) == (len(data), len(target.getvalue()))
    return target.getvalue()


def content(data: bytes) -> list:
    """What each record holds, every chunk verified under its name."""
    found = []
    for record in read_stream(data)[1]:
        if isinstance(record, LocalRecord):
            found.append(record)
            continue
        names = [f"{kind}{layer}" for layer in range(record.layers_present) for kind in "ab"]
        chunks = [chunk.verify(name) for chunk, name in zip(record.chunks, names, strict=True)]
        found.append((record.sequence, record.layers_present, record.layers_total, chunks))
    return found


def test_what_is_left_is_what_was_there():
    data = layered(3, 1, 4)
    whole, two = content(data), content(cut(data, 2))
    for before, after in zip(whole[:3], two[:3], strict=True):
        kept = min(2, before[1])
        assert after == (before[0], kept, before[2], before[3][: 2 * kept])
    assert two[3] == whole[3] == LocalRecord(9, 1, 0.5)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_sizes_are_counted(layers):
    data = layered(4, 4)
    after = cut(data, layers)
    records = [record for record in read_stream(after)[1] if isinstance(record, Packet)]
    head = len(write_header(HEADER)) + len(write_local(HEADER, LocalRecord(9, 1, 0.5)))
    assert sum(record.size for record in records) == len(after) - head
    dropped = sum(10 + 40 * layer + 4 for layer in range(layers, 4))
    behind = [3 * (number + 1) + 4 for number in range(2)]
    expected = len(data) - sum(dropped + (4 - layers) * end for end in behind) + 2 * len(cut_mark(layers))
    assert len(after) == expected and len(cut_mark(layers)) == 6
    [first, *_] = summarise(after)["records"]
    assert (first["layers_present"], first["layers_total"]) == (layers, 4)
    assert len(first["layer_bytes"]) == layers and sum(first["layer_bytes"]) == sum(c["bytes"] for c in first["chunks"])


def test_a_cut_goes_on_from_a_cut():
    data = layered(4, 2, 3)
    assert cut(cut(data, 3), 1) == cut(cut(data, 2), 1) == cut(data, 1)
    assert cut(cut(data, 2), 3) == cut(data, 2)  # what is gone does not come back
    assert cut(data, 4) == data


def test_an_encoder_reads_a_cut_packet_as_one_whose_end_did_not_arrive():
    values = two_layers.values(3, 40)
    data = write_header(HEADER) + two_layers.packet(3, count=40) * 2
    [first, second] = two_layers.read_all(cut(data, 1))
    assert first == second == ("packet", 3, 1, 2, (values & 0xF0).tolist())
    assert two_layers.read_all(data)[0][-1] == values.tolist()


def test_a_stream_that_ended_at_a_layers_end_is_cut_too():
    data = layered(3)[: -len(write_local(HEADER, LocalRecord(9, 1, 0.5)))]
    short = data[: -(90 + 4 + 3 + 4)]
    assert content(short)[0][1:3] == (2, 3)
    assert content(cut(short, 1)) == content(cut(data, 1))
    assert cut(short, 2) == short


@pytest.mark.parametrize(
    ("layers", "reason"),
    [(0, "--layers is 1 or more"), (-1, "--layers is 1 or more"), (4, "have 3 layers: --layers is 1 to 3, not 4")],
)
def test_layers_out_of_range(layers, reason):
    with pytest.raises(UsageError, match=reason):
        cut(layered(3, 1), layers)


def test_a_stream_without_layers():
    data = write_header(HEADER) + write_packet(HEADER, 0, {}, [Chunk("a", b"x")])
    for stream in (data, layered(1, 1)):
        with pytest.raises(UsageError, match="has no layers: each packet decodes whole or not at all"):
            cut(stream, 1)


def test_what_was_damaged_or_ends_early_is_not_cut():
    data = layered(3, 3)
    with pytest.raises(TruncatedStream):
        cut(data[:-20], 1)
    start = len(write_header(HEADER))
    with pytest.raises(CorruptStream):
        cut(data[: start + 3] + b"?" + data[start + 4 :], 1)
    with pytest.raises(StreamError):
        cut(b"no stream", 1)


def test_damage_to_the_mark_is_noticed():
    """Whatever byte of it is changed, and whatever number of layers a mark with a right checksum names."""
    data = cut(layered(4, 4), 2)
    start = len(write_header(HEADER))
    assert data[start : start + 1] == CUT
    for at in range(6):
        for bit in range(8):
            broken = bytearray(data)
            broken[start + at] ^= 1 << bit
            with pytest.raises(StreamError):
                content(bytes(broken))
    for layers in (0, 1, 3, 4, 5, 1000):
        forged = data[:start] + cut_mark(layers) + data[start + 6 :]
        with pytest.raises(StreamError):
            content(forged)
    local = write_header(HEADER) + cut_mark(1) + write_local(HEADER, LocalRecord(0, 1, 0.5))
    with pytest.raises(CorruptStream, match="no packet"):
        content(local)
    with pytest.raises(StreamError):
        content(data[: start + 6])


def test_random_damage_to_a_cut_stream_is_noticed_or_changes_nothing():
    data = cut(layered(3, 2, 3), 1)
    whole = content(data)
    draw = np.random.default_rng(0)
    for _ in range(400):
        broken = bytearray(data)
        at = int(draw.integers(len(write_header(HEADER)), len(data)))
        broken[at] = int(draw.integers(256))
        try:
            assert content(bytes(broken)) == whole
        except (StreamError, ValueError):  # ValueError: other chunks than there are names for
            continue


# -- the command -------------------------------------------------------------------------------------------------------


def call(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def stream(tmp_path):
    path = tmp_path / "a.sem"
    path.write_bytes(layered(3, 3))
    return path


def test_the_command_writes_beside_the_file_or_where_it_is_told(stream, tmp_path):
    told = call("cut", stream, "--layers", 1)
    assert told.exit_code == 0, told.output
    assert "3, of which 2 were cut to 1 layer\n" in told.stdout
    assert (tmp_path / "a.1.sem").read_bytes() == cut(stream.read_bytes(), 1)
    found = json.loads(call("cut", stream, "--layers", 2, "-o", tmp_path / "b.sem", "--format", "json").stdout)
    assert found == {
        "output": str(tmp_path / "b.sem"),
        "layers": 2,
        "records": 3,
        "cut": 2,
        "before": stream.stat().st_size,
        "after": (tmp_path / "b.sem").stat().st_size,
    }
    shown = call("inspect", tmp_path / "b.sem")
    assert "2/3" in shown.stdout and "13 + 53" in shown.stdout and "16 + 56" in shown.stdout


def test_a_cut_that_fails_is_one_line_and_leaves_nothing(stream, tmp_path):
    for arguments, code in ((("--layers", 7), 2), (("--layers", 0), 2), (("--layers", 1, "-o", stream), 2)):
        before = sorted(p.name for p in tmp_path.iterdir())
        result = call("cut", stream, *arguments)
        assert result.exit_code == code and result.stdout == ""
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
        assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert call("cut", tmp_path / "none.sem", "--layers", 1).exit_code == 1
    assert call("cut", stream).exit_code == 2
