"""Sizes of pictures that their decoders would make room for, read from their heads before any decoder sees them.

All raise ValueError or IndexError for a head that is cut short or not as its standard has it.
"""

from __future__ import annotations

from collections.abc import Iterator

from semcodec._video_heads import Size, av1_sizes

JPEG2000 = b"\xff\x4f\xff\x51"
"""What a bare codestream begins with."""
_TILES = 64
"""Tiles of a JPEG 2000 picture: each costs its decoder some 10 kB, whatever it holds."""


def webp_size(data: bytes) -> Size:
    """Of the canvas (RFC 9649)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width, height


def jpeg2000_size(data: bytes) -> Size:
    """Of a codestream (ISO/IEC 15444-1, annex A). Raises ValueError for many tiles and for precincts of its own size.

    Both have the decoder make far more room than the picture's pixels take.
    """
    if data[:4] != JPEG2000:
        raise ValueError("it is no bare codestream")
    right, down, left, top, wide, high, tile_left, tile_top = (
        int.from_bytes(data[at : at + 4], "big") for at in range(8, 40, 4)
    )
    if not wide or not high or right <= left or down <= top:
        raise ValueError("it has no size")
    begun = part = 0
    if -(-(right - tile_left) // wide) * -(-(down - tile_top) // high) > _TILES:
        raise ValueError(f"it has more than {_TILES} tiles")
    at = 2
    while at + 4 <= len(data):
        marker, length = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == b"\xff\x52" and data[at + 4] & 1:  # of all components
            raise ValueError("it has precincts of its own size")
        if marker == b"\xff\x53" and data[at + 5] & 1:  # of one, whose number takes an octet
            raise ValueError("it has precincts of its own size")
        if marker == b"\xff\x90":  # of a tile, whose length tells where the next begins
            begun, part = at, int.from_bytes(data[at + 6 : at + 10], "big")
        at += 2 + length
        if data[at : at + 2] == b"\xff\x93":
            if not part:
                break
            at = begun + part
    return right - left, down - top


def avif_sizes(data: bytes, exact: bool = False) -> list[Size]:
    """Of every AV1 picture in the file, whatever its boxes say of it (ISO/IEC 14496-12, 8.11); exact: as ``av1_sizes``.

    Raises ValueError for sequences of pictures.
    """
    top = dict(_boxes(data))
    if b"moov" in top:
        raise ValueError("it is a sequence of pictures")
    meta = dict(_boxes(top.get(b"meta", b"")[4:]))
    coded = set(_av1_items(meta.get(b"iinf", b"")))
    sizes = []
    for item, extents in _places(meta.get(b"iloc", b""), data, meta.get(b"idat", b"")):
        if item in coded:
            found = list(av1_sizes(extents, exact))
            if not found:
                raise ValueError("a picture in it has no size")
            sizes += found
    return sizes


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box, the first of a kind last, so that it is the one that a dict keeps."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        size = size or len(data) - at
        if size < head:
            raise ValueError("a box is shorter than its head")
        found.append((data[at + 4 : at + 8], data[at + head : at + size]))
        at += size
    return reversed(found)


def _av1_items(iinf: bytes) -> Iterator[int]:
    for kind, entry in _boxes(iinf[6 if iinf[:1] == b"\0" else 8 :]):
        wide = 4 if entry[0] == 3 else 2
        if kind == b"infe" and entry[6 + wide : 10 + wide] == b"av01":
            yield int.from_bytes(entry[4 : 4 + wide], "big")


def _places(iloc: bytes, file: bytes, idat: bytes) -> Iterator[tuple[int, bytes]]:
    """Each item's number and its bytes."""
    at = 4

    def take(count: int) -> int:
        nonlocal at
        at += count
        if at > len(iloc):
            raise ValueError("the places of its items are cut short")
        return int.from_bytes(iloc[at - count : at], "big")

    version, widths = iloc[0], take(2)
    offset, length, base, index = (widths >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(take(4 if version == 2 else 2)):
        item = take(4 if version == 2 else 2)
        within = file
        if version:
            method = take(2) & 15
            if method > 1:
                raise ValueError("an item is made of others")
            within = idat if method else file
        take(2)
        start, parts = take(base), []
        for _ in range(take(2)):
            take(index if version else 0)
            first, count = start + take(offset), take(length)
            parts.append(within[first : first + count] if count else within[first:])
        yield item, b"".join(parts)
