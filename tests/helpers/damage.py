"""Streams of ``two_layers``, damaged, and what is read of them: for tests of every format."""

from __future__ import annotations

import random

from two_layers import read_all

from semcodec.errors import StreamError


def outcome(data: bytes) -> list[tuple] | None:
    """What the stream says, or None where it is refused in one line. Any other exception fails the test."""
    try:
        return read_all(data)
    except StreamError as error:
        message = str(error)
    assert message.isprintable(), message
    return None


def flipped(data: bytes, position: int, mask: int) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Up to three edits: bytes changed, cut out, put in, repeated, moved."""
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(data) + 1)
        stop = min(len(data), start + draw.choice((0, 1, 1, 2, 4, 8, 24, 50)))
        piece = data[start:stop]
        new = draw.choice((b"", draw.randbytes(len(piece)), draw.randbytes(1), piece * 2, b"\0", b"\xff" * 9))
        data = data[:start] + new + data[stop:]
        if draw.random() < 0.2:
            place = draw.randrange(len(data) + 1)
            data = data[:place] + piece + data[place:]
    return data
