"""Damage of every kind: each case ends in a StreamError or, at a layer's or record's end, in a shorter read.

The quick suite has more than 10^5 cases, ``-m slow`` has millions. A case is one whole read: header, records, every
chunk through a Source, to the end.
"""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Iterator

import msgspec
import pytest
from damage import flipped, mutated, outcome
from two_layers import HEADER, packet, read_all, sign, stream, values, varint

from semcodec.container.packets import write_header

DATA = stream()
WHOLE = read_all(DATA)
START = len(write_header(HEADER))
BODY = DATA[9 : START - 4]
OTHER = stream(msgspec.structs.replace(HEADER, weights={"encoder": "ffffffff"}))


def chunks(seed: int, layers: int = 2) -> list[tuple[str, bytes]]:
    sent = values(seed).astype("<i4")
    both = [("high", (sent >> 4).tobytes()), ("low", (sent & 15).tobytes())]
    return [("count", struct.pack("<H", sent.size)), *both[:layers]]


TABLE = bytes([2 << 2 | 1, 20 << 2 | 2, 20 << 2 | 2])
RECORDS = [
    (b"P", b"\0\3" + TABLE, chunks(0)),
    (b"P", b"\1\2" + TABLE[:2] + b"\x81\x00\x01", chunks(1, 1)),
    (b"L", varint(200) + b"\3" + struct.pack("<f", 0.75), []),
    (b"P", varint(300) + b"\3" + TABLE + b"\x81\x01\xa1n", chunks(300)),
]

# What damage may leave: whole records, or the first layer of one that has two.
ALLOWED = [
    *WHOLE,
    *((*row[:2], 1, 2, [v & 0xF0 for v in row[4]]) for row in WHOLE if row[0] == "packet" and row[3] == 2),
]


def sized(quick: int, slow: int) -> pytest.MarkDecorator:
    """Run with so many cases and seed 0, and with more under ``-m slow``."""
    return pytest.mark.parametrize("cases", [quick, pytest.param(slow, marks=pytest.mark.slow)])


def test_the_undamaged_stream_is_what_the_description_says():
    assert sign(BODY, RECORDS) == DATA
    assert [row[0] for row in WHOLE] == ["packet", "packet", "local", "packet"]
    assert [row[4] for row in WHOLE if row[0] == "packet"] == [
        values(0).tolist(),
        (values(1) & 0xF0).tolist(),
        values(300).tolist(),
    ]


def test_every_byte_flipped_by_every_mask():
    survived = [
        (position, mask)
        for position in range(len(DATA))
        for mask in range(1, 256)
        if outcome(flipped(DATA, position, mask)) is not None
    ]
    assert survived == []
    assert len(DATA) * 255 > 90_000


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_byte_of_a_larger_packet_flipped(mask):
    data = write_header(HEADER) + packet(1, count=300)
    assert [p for p in range(START, len(data)) if outcome(flipped(data, p, mask)) is not None] == []


@sized(10_000, 1_000_000)
def test_random_edits(cases):
    draw = random.Random(0)
    for _ in range(cases):
        found = outcome(mutated(DATA, draw))
        assert found is None or all(row in ALLOWED for row in found)


def splices(cases: int) -> Iterator[bytes]:
    """Two streams joined anywhere; then whole records of one in the other, and chunks of one packet in another."""
    draw = random.Random(0)
    for _ in range(cases):
        yield DATA[: draw.randrange(START, len(DATA) + 1)] + draw.choice((DATA, OTHER))[draw.randrange(len(DATA)) :]


@sized(10_000, 500_000)
def test_splices(cases):
    for data in splices(cases):
        found = outcome(data)
        assert found is None or all(row in ALLOWED for row in found)


def test_header_of_one_stream_before_the_packets_of_another():
    assert len(OTHER) == len(DATA)
    assert outcome(OTHER) == WHOLE
    assert outcome(DATA[:START] + OTHER[START:]) is None
    assert outcome(OTHER[:START] + DATA[START:]) is None


@sized(1_000, 100_000)
@pytest.mark.parametrize("prefix", [b"", b"SEMC", b"SEMC\x01", DATA[:START], DATA[:START] + b"P", DATA[:-30]])
def test_random_bytes(prefix, cases):
    draw = random.Random(0)
    for _ in range(cases):
        noise = draw.randbytes(draw.choice((0, 1, 2, 5, 30, 200, 1000)))
        found = outcome(prefix + noise)
        assert found is None or all(row in ALLOWED for row in found)


# -- damage by someone who corrects the checksums --------------------------------------------------------------------


def forged(draw: random.Random) -> bytes:
    """A stream whose checksums all hold, damaged in its header, a head or a chunk before it was signed."""
    body, records = BODY, [(marker, rest, list(chunks)) for marker, rest, chunks in RECORDS]
    at = draw.randrange(len(records))
    marker, rest, parts = records[at]
    what = draw.randrange(7)
    if what == 0:
        body = mutated(body, draw)
    elif what == 1:
        records[at] = (marker, mutated(rest, draw), parts)
    elif what == 2:
        records[at] = (marker, draw.randbytes(draw.choice((0, 1, 5, 20, 300))), parts)
    elif what == 3:
        records[at] = (draw.choice((b"P", b"L", b"\0")), rest, parts)
    elif parts:
        place = draw.randrange(len(parts))
        name, data = parts[place]
        if what == 4:  # other values in the same form
            parts[place] = (name, draw.randbytes(len(data)))
        else:
            parts[place] = (draw.choice((name, name, "high", "low")), mutated(data, draw))
        if what == 6:  # and the table says so
            sizes = [len(part) << 2 | draw.randrange(4) for _, part in parts]
            rest = varint(at) + varint(len(parts)) + b"".join(map(varint, sizes)) + draw.choice((b"", b"\x81\x00\x01"))
            records[at] = (marker, rest, parts)
    return sign(body, records)


@sized(20_000, 1_000_000)
def test_signed_damage(cases):
    """Signed damage may read as other values, never as another form, another exception or more than was sent."""
    draw, read, changed = random.Random(0), 0, 0
    for _ in range(cases):
        data = forged(draw)
        found = outcome(data)
        if found is None:
            continue
        read, changed = read + 1, changed + (found != WHOLE)
        for row in found:
            assert row[0] == "local" or (1 <= row[2] <= row[3] and 4 * len(row[4]) <= len(data))
    # Both kinds must really have been tried.
    assert cases * 0.03 < changed <= read < cases * 0.6


@sized(2_000, 100_000)
def test_signed_damage_takes_no_memory(cases):
    """The peak stays within twice the file and what the reader asked for; here it never asks for more than it gets."""
    draw = random.Random(1)
    streams = [forged(draw) for _ in range(cases)]
    tracemalloc.start()
    try:
        for data in streams:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            outcome(data)
            # 50 kB: the reader's objects and tracebacks, whatever the stream says.
            assert tracemalloc.get_traced_memory()[1] - before < 2 * len(data) + 50_000
    finally:
        tracemalloc.stop()
