"""Unsigned integers in as few bytes as they need, seven bits a byte, as the container and packed tables write them."""

from __future__ import annotations

from collections.abc import Callable

from semcodec.errors import CorruptStream


def varint(value: int) -> bytes:
    """A non-negative integer below ``2 ** 63``, low bits first, the top bit set on every byte but the last."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_number(next_byte: Callable[[], int], what: str) -> int:
    """What ``varint`` wrote, byte by byte. ``what`` has it: for the message.

    Raises CorruptStream for a number of 64 bits or one that is not in its shortest form, and what ``next_byte`` raises.
    """
    value = 0
    for shift in range(0, 63, 7):
        byte = next_byte()
        value |= (byte & 127) << shift
        if byte < 128:
            if shift and not byte:
                raise CorruptStream(f"{what} has a number that is not in its shortest form: the stream is damaged")
            return value
    raise CorruptStream(f"{what} has a number above 2**63: the stream is damaged")
