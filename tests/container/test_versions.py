"""Formats side by side: one that only this module knows is written and read in the same process as format 1."""

from __future__ import annotations

import io
import json
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from golden.streams import decode
from two_layers import HEADER, packet, read_all, stream

from semcodec.container.header import FORMATS
from semcodec.container.packets import (
    FORMAT,
    LocalRecord,
    Packet,
    StreamHeader,
    cut_mark,
    read_stream,
    write_header,
    write_local,
)
from semcodec.container.records import CheckedChunk, chunk_crc
from semcodec.container.summary import summarise
from semcodec.container.truncation import cut_stream
from semcodec.errors import VersionMismatch

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"


class LinesHeader(StreamHeader):
    format: ClassVar[int] = 9

    @cached_property
    def id(self) -> int:
        return len(Lines.write_header(self))


class Lines:
    """Format 9, for this test: a line of JSON for the header and one for each record, chunks in hexadecimal."""

    @staticmethod
    def write_header(header):
        return b"SEMC\x09" + msgspec.json.encode(header) + b"\n"

    @staticmethod
    def read_header(stream):
        return msgspec.json.decode(stream.readline(), type=LinesHeader)

    @staticmethod
    def write_packet(header, sequence, params, parts):
        chunks = [(part.name, part.data.hex(), part.side, part.ends_layer) for part in parts]
        return json.dumps([sequence, dict(params), chunks]).encode() + b"\n"

    @staticmethod
    def write_local(header, record):
        return json.dumps([record.sequence, record.index, record.probability, None]).encode() + b"\n"

    @staticmethod
    def read_packets(stream, header):
        for line in stream:
            sequence, params, *rest = json.loads(line)
            if len(rest) == 2:
                yield LocalRecord(sequence, params, rest[0])
                continue
            chunks = []
            for name, written, side, ends in rest[0]:
                data = bytes.fromhex(written)
                chunks.append(CheckedChunk(sequence, side, ends, data, chunk_crc(name, data, 0), 0))
            layers = sum(chunk.ends_layer for chunk in chunks)
            yield Packet(header.id, sequence, {**header.params, **params}, params, chunks, layers, layers, len(line))

    @staticmethod
    def cut_mark(layers):
        return b"cut %d\n" % layers

    @staticmethod
    def bytes_behind(packet, layers):
        return 0


@pytest.fixture
def _format_9(monkeypatch):
    monkeypatch.setitem(FORMATS, 9, Lines)


LATER = LinesHeader(**msgspec.structs.asdict(HEADER))


@pytest.mark.usefixtures("_format_9")
def test_two_formats_are_read_side_by_side():
    first, second = stream(), stream(LATER)
    assert (first[4], second[4], FORMAT) == (1, 9, 2)
    assert read_all(second) == read_all(first)
    streams = [read_stream(data) for data in (first, second)]
    assert [(type(header), header.format) for header, _ in streams] == [(StreamHeader, 1), (LinesHeader, 9)]
    turns = list(zip(streams[0][1], streams[1][1], strict=True))  # a record of each in turn
    assert [(a.sequence, getattr(a, "params", 0)) for a, _ in turns] == [
        (b.sequence, getattr(b, "params", 0)) for _, b in turns
    ]


@pytest.mark.usefixtures("_format_9")
def test_what_is_written_is_in_the_format_of_its_header():
    again = msgspec.structs.replace(LATER, spec="other+raw+toy")
    assert write_header(again).startswith(b"SEMC\x09{") and write_header(HEADER).startswith(b"SEMC\x01")
    assert again.id != LATER.id != HEADER.id
    assert packet(0, LATER).startswith(b"[0, ") and packet(0).startswith(b"P")
    assert write_local(LATER, LocalRecord(5, 1, 0.5)) == b"[5, 1, 0.5, null]\n"
    assert cut_mark(2, 9) == b"cut 2\n" and cut_mark(2) == cut_mark(2, 1)


@pytest.mark.usefixtures("_format_9")
def test_a_summary_says_which_format():
    found = [summarise(stream(header)) for header in (HEADER, LATER)]
    assert [summary["format"] for summary in found] == [1, 9]
    assert [summary["file_bytes"] for summary in found] == [len(stream(header)) for header in (HEADER, LATER)]


@pytest.mark.usefixtures("_format_9")
def test_a_cut_stream_stays_in_its_format():
    for header in (HEADER, LATER):
        out = io.BytesIO()
        cut_stream(io.BytesIO(stream(header)), out, 1)
        start = len(write_header(header))
        assert out.getvalue()[:start] == write_header(header)
        assert out.getvalue()[start:].startswith(cut_mark(1, header.format))


@pytest.mark.usefixtures("_format_9")
@pytest.mark.parametrize("name", ["layered", "png"])
def test_format_1_reads_as_before_beside_another(name):
    found = decode((GOLDEN / name / "stream.sem").read_bytes())
    config = json.loads((GOLDEN / name / "config.json").read_text())
    del config["made_of"]
    assert found.config == config


def test_a_format_that_is_not_there_is_refused(monkeypatch):
    with pytest.raises(VersionMismatch, match="format version 9, this semcodec reads 1, 2: use the semcodec"):
        read_stream(b"SEMC\x09{}\n")
    monkeypatch.setitem(FORMATS, 9, Lines)
    with pytest.raises(VersionMismatch, match="format version 3, this semcodec reads 1, 2, 9"):
        read_stream(b"SEMC\x03{}\n")
