"""Sizes of the pictures that a bare video stream asks its decoder to make, read without decoding it.

They are those of coding: what a stream has its decoder cut off for showing takes memory all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

Size = tuple[int, int]
"""Width and height."""


def coded_sizes(data: bytes, form: str) -> list[Size]:
    """Of every sequence in a stream in FFmpeg's format ``form``: h264, hevc, vvc or obu.

    Raises ValueError for a head that is cut short or not as its standard has it.
    """
    if form == "obu":
        return list(av1_sizes(data))
    kind, wanted, read = _READERS[form]
    return [read(_Bits(_plain(unit))) for unit in _units(data) if len(unit) > 2 and kind(unit) == wanted]


def av1_sizes(data: bytes, exact: bool = False) -> Iterator[Size]:
    """Of every sequence header among AV1's open bitstream units, each with its size, the last perhaps without.

    exact: raises ValueError too where a frame's own head could ask for more than twice the width or height.
    """
    at = 0
    while at < len(data):
        head = data[at]
        at += 2 if head & 4 else 1
        size, at = _leb128(data, at) if head & 2 else (len(data) - at, at)
        if head >> 3 & 15 == 1:
            yield _av1_sequence(_Bits(data[at : at + size]), exact)
        at += size


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + 8]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a unit's size is cut short")


def _units(data: bytes) -> list[bytes]:
    """The network abstraction layer units of an Annex B stream."""
    return data.split(b"\0\0\1")[1:]


def _plain(unit: bytes) -> bytes:
    """Without the bytes that keep start codes out of it; the head of a long one."""
    return re.sub(b"\0\0\3", b"\0\0", unit[:4096])


class _Bits:
    """Numbers of a bit string, high bits first. Raises ValueError past its end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._length, self.at = int.from_bytes(data, "big"), 8 * len(data), 0

    def take(self, count: int) -> int:
        self.at += count
        if self.at > self._length:
            raise ValueError("a head is cut short")
        return self._value >> (self._length - self.at) & ((1 << count) - 1)

    def align(self) -> None:
        self.at = -(-self.at // 8) * 8

    def golomb(self) -> int:
        """An unsigned Exp-Golomb number of at most 32 bits."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("a number is too long")
        return (1 << zeros) - 1 + self.take(zeros)


_HIGH = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
"""Profiles of H.264 whose sequence parameters say more of colours (7.3.2.1.1)."""


def _h264_sequence(bits: _Bits) -> Size:
    """ITU-T H.264, 7.3.2.1.1."""
    bits.take(8)
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile in _HIGH:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take(1)
        bits.golomb(), bits.golomb(), bits.take(1)
        if bits.take(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if number < 6 else 64)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1), bits.golomb(), bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb(), bits.take(1)
    width, height = 16 * (bits.golomb() + 1), 16 * (bits.golomb() + 1)
    return width, height * (1 if bits.take(1) else 2)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = step = 8
    for _ in range(size):
        if step:
            code = bits.golomb()
            step = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = step or last


def _h265_sequence(bits: _Bits) -> Size:
    """ITU-T H.265, 7.3.2.2 and 7.3.3."""
    bits.take(1)
    bits.take(6)  # of the layer
    bits.take(9 + 4)
    layers = bits.take(3)
    bits.take(1 + 96)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    bits.take(2 * (8 - layers) if layers else 0)
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.golomb()
    if bits.golomb() == 3:
        bits.take(1)
    return bits.golomb(), bits.golomb()


def _h266_sequence(bits: _Bits) -> Size:
    """ITU-T H.266, 7.3.2.4, 7.3.3.1 and 7.3.3.2."""
    bits.take(16 + 8)
    layers = bits.take(3)
    bits.take(4)
    if bits.take(1):
        bits.take(8 + 8 + 2)
        if bits.take(1):
            bits.take(71)
            bits.take(bits.take(8))
        bits.align()
        levels = [bits.take(1) for _ in range(layers)]
        bits.align()
        bits.take(8 * sum(levels))
        bits.take(32 * bits.take(8))
    bits.take(1)
    if bits.take(1):
        bits.take(1)
    return bits.golomb(), bits.golomb()


def _av1_sequence(bits: _Bits, exact: bool) -> Size:
    """AV1's sequence_header_obu (5.5.1), the largest frame that it says there is."""
    bits.take(3 + 1)
    reduced = bits.take(1)
    if reduced:
        bits.take(5)
    else:
        delays = 0
        decoder_model = 0
        if bits.take(1):
            bits.take(64)
            if bits.take(1):
                _skip_uvlc(bits)
            decoder_model = bits.take(1)
            if decoder_model:
                delays = bits.take(5) + 1
                bits.take(32 + 5 + 5)
        initial_delay = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if decoder_model and bits.take(1):
                bits.take(2 * delays + 1)
            if initial_delay and bits.take(1):
                bits.take(4)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(wide) + 1, bits.take(high) + 1
    if exact and not reduced and (1 << wide > 2 * width or 1 << high > 2 * height):
        raise ValueError("its frames may be larger than it says")
    return width, height


def _skip_uvlc(bits: _Bits) -> None:
    zeros = 0
    while not bits.take(1):
        zeros += 1
    if zeros < 32:
        bits.take(zeros)


_READERS: dict[str, tuple[Callable[[bytes], int], int, Callable[[_Bits], Size]]] = {
    "h264": (lambda unit: unit[0] & 31, 7, _h264_sequence),
    "hevc": (lambda unit: -1 if unit[0] & 1 or unit[1] >> 3 else unit[0] >> 1 & 63, 33, _h265_sequence),  # of layer 0
    "vvc": (lambda unit: unit[1] >> 3, 15, _h266_sequence),
}
"""By form: a unit's type, the type of sequence parameters, and how these are read."""
