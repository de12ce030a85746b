"""Lossless coding of bool masks (K, H, W), smooth or random. All of it is side information.

A mask of one value costs one byte. One of equal squares is reduced to a place each. Then the cheaper of two ways:
every place alike (random masks), or from a coarse grid to a fine one, where each place's context is how many of its
four neighbours on the coarser grid are kept (smooth masks). The probability of each context travels as 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semcodec.errors import CorruptStream, UsageError
from semcodec.priors import Indexed, Table
from semcodec.types import Sink, Source

Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]
Places = tuple[slice, slice]

NONE, ALL, ALIKE, NESTED = range(4)

STRIDES = (16, 8)
"""The coarsest grid, of large images and of those up to ``SMALL`` a side, where every chunk weighs."""
SMALL = 128
CHUNK_BITS = 96
"""What one more chunk is thought to cost, in bits, when the ways are compared."""
CONTEXTS = {ALIKE: 1, NESTED: 11}
"""Nested: 0 for the coarsest grid, 1 to 5 for places between corners, 6 to 10 for places between sides."""
ONE = 1 << 16
MAX_SQUARES = 6


def write_mask(mask: Bool, sink: Sink, name: str = "mask") -> None:
    """Send ``mask``, bool (K, H, W); its shape is not sent. Raises UsageError on another shape or dtype."""
    if mask.dtype != np.bool_ or mask.ndim != 3:
        raise UsageError(f"a mask must be bool (K, H, W), not {mask.dtype} {mask.shape}")
    if mask.all() or not mask.any():
        sink.blob(name, bytes([ALL if mask.any() else NONE]), side=True)
        return
    squares = _squares(mask)
    mask = mask[:, :: 1 << squares, :: 1 << squares]
    ways = {
        ALIKE: [(np.zeros(mask.size, np.intp), mask.ravel())],
        NESTED: [
            (_context(mask, step), np.concatenate([mask[:, y, x].ravel() for y, x in step.places]))
            for step in nested(*mask.shape[1:])
        ],
    }
    frequencies, bits = {}, {}
    for way, chunks in ways.items():
        counts = sum(np.bincount(2 * context + bit, minlength=2 * CONTEXTS[way]) for context, bit in chunks)
        zeros, ones = np.asarray(counts).reshape(-1, 2).T
        share = np.clip(np.round(ONE * ones / np.maximum(zeros + ones, 1)), 1, ONE - 1)
        bits[way] = CHUNK_BITS * len(chunks) - ones @ np.log2(share / ONE) - zeros @ np.log2(1 - share / ONE)
        frequencies[way] = share.astype("<u2")
    way = min(ways, key=lambda w: float(bits[w]))
    sink.blob(name, bytes([way + 4 * squares]) + frequencies[way].tobytes(), side=True)
    tables = _tables(frequencies[way])
    for i, (context, bit) in enumerate(ways[way]):
        sink.symbols(f"{name}.{i}", bit.astype(np.int32), Indexed(tables, context), side=True)


def read_mask(shape: tuple[int, int, int], source: Source, name: str = "mask") -> Bool:
    """The inverse of ``write_mask``: bool of ``shape`` (K, H, W). Raises CorruptStream on what it cannot have sent."""
    head = source.blob(name, 1 + 2 * max(CONTEXTS.values()))
    if head in (bytes([ALL]), bytes([NONE])):
        return np.full(shape, head[0] == ALL)
    squares, way = divmod(head[0], 4) if head else (0, -1)
    frequencies = np.frombuffer(head[1:] if len(head) % 2 else b"", "<u2")
    if frequencies.size != CONTEXTS.get(way) or not frequencies.all() or squares > MAX_SQUARES:
        raise CorruptStream(f"{name}: not the head of a mask; the stream is damaged, get it again")
    tables = _tables(frequencies)
    size = 1 << squares
    mask = np.zeros((shape[0], -(-shape[1] // size), -(-shape[2] // size)), np.bool_)

    def bits(chunk: int, context: Index) -> Bool:
        values = source.symbols(f"{name}.{chunk}", context.size, Indexed(tables, context))
        if values.size and not 0 <= int(values.min()) <= int(values.max()) <= 1:
            raise CorruptStream(f"{name}: a bit is neither 0 nor 1; the stream is damaged, get it again")
        return values.astype(np.bool_)

    if way == ALIKE:
        return _enlarge(bits(0, np.zeros(mask.size, np.intp)).reshape(mask.shape), size, shape)
    for chunk, step in enumerate(nested(*mask.shape[1:])):
        values = bits(chunk, _context(mask, step))
        start = 0
        for y, x in step.places:
            view = mask[:, y, x]
            view[...] = values[start : start + view.size].reshape(view.shape)
            start += view.size
    return _enlarge(mask, size, shape)


def _squares(mask: Bool) -> int:
    """Largest s up to ``MAX_SQUARES`` such that the mask is made of squares of 2**s places, all of one value each."""
    s = 0
    while s < MAX_SQUARES:
        size = 2 << s
        if not np.array_equal(_enlarge(mask[:, ::size, ::size], size, mask.shape), mask):
            break
        s += 1
    return s


def _enlarge(mask: Bool, size: int, shape: tuple[int, ...]) -> Bool:
    if size == 1:
        return mask
    return mask.repeat(size, axis=1).repeat(size, axis=2)[:, : shape[1], : shape[2]].copy()


def _tables(frequencies: npt.NDArray[np.uint16]) -> tuple[Table, ...]:
    return tuple(Table(0, np.array([ONE - int(f), int(f)], np.uint32)) for f in frequencies)


@dataclass(frozen=True)
class Pass:
    """Places that are coded together, each between four places of earlier passes.

    distance: to the four neighbours; 0 on the coarsest grid, which has none.
    corners: whether these lie diagonally rather than above, below, left and right.
    places: rows and columns as slices of an image.
    """

    distance: int
    corners: bool
    places: tuple[Places, ...]


def coarsest(height: int, width: int) -> int:
    """Stride of the coarsest grid."""
    return STRIDES[max(height, width) <= SMALL]


def nested(height: int, width: int) -> Iterator[Pass]:
    """The passes that visit every place of an image once, from the coarsest grid to the finest."""
    s = coarsest(height, width)
    yield Pass(0, False, ((slice(None, None, s), slice(None, None, s)),))
    while s := s // 2:
        for corners, origins in ((True, [(s, s)]), (False, [(0, s), (s, 0)])):
            inside = [(y, x) for y, x in origins if y < height and x < width]
            if inside:
                yield Pass(s, corners, tuple((slice(y, None, 2 * s), slice(x, None, 2 * s)) for y, x in inside))


def _context(mask: Bool, step: Pass) -> Index:
    """Context of every place of a step, from the coarser grid alone; a neighbour beyond the border is the opposite."""
    s = step.distance
    if not s:
        y, x = step.places[0]
        return np.zeros(mask[:, y, x].size, np.intp)
    contexts = []
    for y, x in step.places:
        rows, columns = np.arange(mask.shape[1])[y], np.arange(mask.shape[2])[x]
        up, down, left, right = rows - s, rows + s, columns - s, columns + s
        up, down = np.where(up < 0, down, up), np.where(down >= mask.shape[1], up, down)
        left, right = np.where(left < 0, right, left), np.where(right >= mask.shape[2], left, right)
        near = [(up, left), (up, right), (down, left), (down, right)]
        if not step.corners:
            near = [(up, columns), (down, columns), (rows, left), (rows, right)]
        kept = np.zeros((len(mask), rows.size, columns.size), np.intp)
        for ys, xs in near:
            kept += _take(mask, ys, xs)
        contexts.append(kept.ravel() + (1 if step.corners else 6))
    return np.concatenate(contexts)


def _take(mask: Bool, rows: Index, columns: Index) -> Bool:
    """``mask`` at rows x columns; false beyond the border (an edge of one row or column has no opposite)."""
    inside = ((rows >= 0) & (rows < mask.shape[1]))[:, None] & ((columns >= 0) & (columns < mask.shape[2]))
    clipped = np.ix_(np.clip(rows, 0, mask.shape[1] - 1), np.clip(columns, 0, mask.shape[2] - 1))
    taken: Bool = mask[:, clipped[0], clipped[1]] & inside
    return taken
