"""Sizes of the frames of a JPEG XL codestream (ISO/IEC 18181-1), read before a decoder sees it.

A frame may be larger than the picture that it is part of, so the picture's own size bounds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from semcodec._video_heads import Size

SIGNATURE = b"\xff\x0a"
"""What a bare codestream begins with."""
MOST_FRAMES = 8
"""libjxl's encoder makes two of a picture that repeats itself: what is repeated, and the picture."""
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ENUM = ((0, 0), (1, 0), (2, 4), (18, 6))
_EXACT = ((1, 0), (2, 0), (4, 0), (8, 0))
_SIDE = ((0, 8), (256, 11), (2304, 14), (18688, 30))
_XY = ((0, 19), (524288, 19), (1048576, 20), (2097152, 21))
_LENGTH = ((0, 10), (1024, 14), (17408, 22), (4211712, 30))
_GRAY, _XYB = 1, 2
_REGULAR, _LOW_FREQUENCY, _REFERENCE_ONLY = 0, 1, 2
_FROM_LOW_FREQUENCY = 32


class _Bits:
    """Reads from the least significant bit on. Raises ValueError behind the end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> int:
        begin, self.at = self.at, self.at + count
        if self.at > 8 * len(self.data):
            raise ValueError("it is cut short")
        whole = int.from_bytes(self.data[begin // 8 : -(-self.at // 8)], "little")
        return whole >> begin % 8 & ((1 << count) - 1)

    def pick(self, choices: tuple[tuple[int, int], ...]) -> int:
        """One of four, each an offset and so many bits to be added: U32()."""
        offset, count = choices[self.take(2)]
        return offset + self.take(count)

    def skip_halves(self, count: int) -> None:
        self.take(16 * count)

    def align(self) -> None:
        self.at += -self.at % 8

    def refuse_extensions(self) -> None:
        if self.take(2):
            raise ValueError("it has extensions")


def jpegxl_sizes(data: bytes) -> Iterator[Size]:
    """Of the picture, then of each frame before what it holds is looked at.

    Raises ValueError for what libjxl's encoder makes of no picture and what takes room beyond these sizes: previews,
    animations, channels beside colours, colour profiles, frames of low frequencies, and for heads that are cut short.
    """
    bits = _Bits(data)
    bits.take(8 * len(SIGNATURE))
    picture = _size(bits)
    yield picture
    xyb = _metadata(bits)
    for _ in range(MOST_FRAMES):
        bits.align()
        frame = _Frame(bits, picture, xyb)
        yield frame.size
        frame.skip(bits)
        if frame.last:
            return
    raise ValueError(f"it has more than {MOST_FRAMES} frames")


def _size(bits: _Bits) -> Size:
    small = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if small else bits.take((9, 13, 18, 30)[bits.take(2)]) + 1

    height = side()
    ratio = bits.take(3)
    return (height * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1] if ratio else side()), height


def _metadata(bits: _Bits) -> bool:
    """Skip what is said of the whole picture; whether its colours are XYB."""
    xyb = True
    if not bits.take(1):  # not all as usual
        more = bits.take(1)
        if more:
            bits.take(3)
            if bits.take(1):
                _size(bits)
            if bits.take(1) or bits.take(1):
                raise ValueError("it has a preview or is an animation")
        real = bits.take(1)
        bits.pick(((32, 0), (16, 0), (24, 0), (1, 6)) if real else ((8, 0), (10, 0), (12, 0), (1, 6)))
        if real:
            bits.take(4)
        bits.take(1)
        if bits.take(2):
            raise ValueError("it has channels beside its colours")
        xyb = bool(bits.take(1))
        _colours(bits)
        if more and not bits.take(1):
            bits.skip_halves(3)
            bits.take(1)
        bits.refuse_extensions()
    if not bits.take(1):
        if xyb and not bits.take(1):
            bits.skip_halves(16)
        custom = bits.take(3)
        bits.skip_halves(sum(count for bit, count in enumerate((15, 55, 210)) if custom >> bit & 1))
    return xyb


def _colours(bits: _Bits) -> None:
    if bits.take(1):
        return
    if bits.take(1):
        raise ValueError("it has a colour profile")
    space = bits.pick(_ENUM)
    if space != _XYB:
        _points(bits, 1)
        if space != _GRAY:
            _points(bits, 3)
        if bits.take(1):
            bits.take(24)
        else:
            bits.pick(_ENUM)
    bits.pick(_ENUM)


def _points(bits: _Bits, count: int) -> None:
    if bits.pick(_ENUM) == 2:  # of its own
        for _ in range(2 * count):
            bits.pick(_XY)


class _Frame:
    """The head of one frame. size: of its pixels. last: whether none comes behind it."""

    def __init__(self, bits: _Bits, picture: Size, xyb: bool) -> None:
        self.size, self.last = picture, True
        self._passes, self._scale, self._group = 1, 1, 256
        if bits.take(1):  # all as usual
            return
        kind, modular = bits.take(2), bits.take(1)
        if kind == _LOW_FREQUENCY:
            raise ValueError("it has a frame of low frequencies")
        if _long(bits) & _FROM_LOW_FREQUENCY:
            raise ValueError("it needs a frame of low frequencies")
        if not xyb and bits.take(1):
            bits.take(6)
        self._scale = bits.pick(_EXACT)
        if modular:
            self._group = 128 << bits.take(2)
        elif xyb:
            bits.take(6)
        if kind != _REFERENCE_ONLY:
            self._passes = _passes(bits)
        partial = self._place(bits, kind)
        whole = kind != _REFERENCE_ONLY
        mode = bits.pick(((0, 0), (1, 0), (2, 0), (3, 2))) if whole else 0
        if mode:
            raise ValueError("it has frames that are blended")
        if whole and partial:
            bits.take(2)
        self.last = bool(whole and bits.take(1))
        if not self.last:
            bits.take(2)
            if not (whole and partial):
                bits.take(1)
        bits.take(8 * bits.pick(((0, 0), (0, 4), (16, 5), (48, 10))))
        _filters(bits, bool(modular))
        bits.refuse_extensions()

    def _place(self, bits: _Bits, kind: int) -> bool:
        """Whether the frame is not the whole picture."""
        if not bits.take(1):
            return False
        picture, corner = self.size, (0, 0)
        if kind != _REFERENCE_ONLY:
            corner = bits.pick(_SIDE), bits.pick(_SIDE)
        self.size = bits.pick(_SIDE), bits.pick(_SIDE)
        return corner != (0, 0) or any(side < of for side, of in zip(self.size, picture, strict=True))

    def skip(self, bits: _Bits) -> None:
        """Go behind the frame's sections, whose lengths come first."""
        width, height = (-(-side // self._scale) for side in self.size)
        groups, coarse = (-(-width // side) * -(-height // side) for side in (self._group, 8 * self._group))
        sections = 1 if groups * self._passes == 1 else 2 + coarse + groups * self._passes
        if bits.take(1):
            raise ValueError("its sections are not in their usual order")
        bits.align()
        lengths = [bits.pick(_LENGTH) for _ in range(sections)]
        bits.align()
        bits.at += 8 * sum(lengths)


def _long(bits: _Bits) -> int:
    """U64(), as far as any head needs it."""
    kind = bits.take(2)
    if kind == 3:
        raise ValueError("it has flags that are not known")
    return (0, 1, 17)[kind] + bits.take((0, 4, 8)[kind])


def _passes(bits: _Bits) -> int:
    count = bits.pick(((1, 0), (2, 0), (3, 0), (4, 3)))
    if count > 1:
        finer = bits.pick(((0, 0), (1, 0), (2, 0), (3, 1)))
        bits.take(2 * (count - 1))
        for _ in range(finer):
            bits.pick(_EXACT)
        for _ in range(finer):
            bits.pick(((0, 0), (1, 0), (2, 0), (0, 3)))
    return count


def _filters(bits: _Bits, modular: bool) -> None:
    if bits.take(1):
        return
    if bits.take(1) and bits.take(1):
        bits.skip_halves(6)
    if bits.take(2):
        if not modular and bits.take(1):
            bits.skip_halves(8)
        if bits.take(1):
            bits.skip_halves(5)
        if bits.take(1):
            bits.skip_halves(3 if modular else 4)
        if modular:
            bits.skip_halves(1)
    bits.refuse_extensions()
