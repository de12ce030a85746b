"""Coding of segmentations: packed as they are, or by static tables under contexts of what was coded before.

The middle frame goes first. Within a frame a coarse grid goes first, then the places between it, as in
``semcodec.coding.masks``: a class is coded given the one that most of its four neighbours on the coarser grid have,
how many of them do, and the class at that place of the middle frame. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from semcodec.coding.bits import pack_bits, packed_size, unpack_bits
from semcodec.coding.masks import Pass, nested
from semcodec.errors import CorruptStream
from semcodec.interfaces import Sink, Source
from semcodec.priors import Indexed, Table
from semcodec_plugins.deepisc.spec import CLASSES, SEGMENT_BITS

UInt8 = npt.NDArray[np.uint8]
Index = npt.NDArray[np.intp]
Tables = tuple[Table, ...]
Code = Callable[[Index, UInt8], UInt8]
"""Contexts and true classes of the places of one chunk, to the classes; what is read has no true ones yet."""

FINE = 2
"""Places further than this from their neighbours are coded with the coarsest grid: every chunk costs some bytes."""
NEIGHBOURS = 4
SPATIAL = 1 + FINE * CLASSES * NEIGHBOURS
"""None on the coarsest grid; else distance, the class that most neighbours have, and how many."""
CONTEXTS = (CLASSES + 1) * SPATIAL


def write_packed(segments: UInt8, sink: Sink) -> None:
    """Classes (k, h, w) past the entropy stage, each in ``SEGMENT_BITS``."""
    sink.blob("segments", pack_bits(segments.ravel(), SEGMENT_BITS))


def read_packed(shape: tuple[int, int, int], source: Source) -> UInt8:
    """What ``write_packed`` wrote, of ``shape`` (k, h, w). Raises CorruptStream."""
    count = int(np.prod(shape))
    data = source.blob("segments", packed_size(SEGMENT_BITS, count))
    return unpack_bits(data, SEGMENT_BITS, count, "segments").astype(np.uint8).reshape(shape)


def write_coded(segments: UInt8, tables: Tables, sink: Sink) -> None:
    """Classes (k, h, w) through the entropy stage. tables: one of the classes for each context."""
    chunk = 0

    def code(context: Index, classes: UInt8) -> UInt8:
        nonlocal chunk
        sink.symbols(f"segments.{chunk}", classes.astype(np.int32), Indexed(tables, context))
        chunk += 1
        return classes

    visit(segments, code)


def read_coded(shape: tuple[int, int, int], tables: Tables, source: Source) -> UInt8:
    """What ``write_coded`` wrote, of ``shape`` (k, h, w). Raises CorruptStream."""
    chunk = 0

    def code(context: Index, classes: UInt8) -> UInt8:
        nonlocal chunk
        values = source.symbols(f"segments.{chunk}", context.size, Indexed(tables, context))
        chunk += 1
        if not 0 <= int(values.min()) <= int(values.max()) < CLASSES:
            raise CorruptStream("segments: there is no such class; the stream is damaged, get it again")
        return values.astype(np.uint8)

    segments = np.zeros(shape, np.uint8)
    visit(segments, code)
    return segments


def visit(segments: UInt8, code: Code) -> None:
    """Every place once, in chunks whose contexts earlier ones give; what ``code`` returns is what is there."""
    middle = len(segments) // 2
    others = np.delete(np.arange(len(segments)), middle)
    for frames, before in ((np.array([middle]), None), (others, segments[middle])):
        for steps in _chunks(*segments.shape[1:]) if frames.size else ():
            places = [(step, window) for step in steps for window in step.places]
            grids = [np.ix_(frames, *_places(segments.shape[1:], window)) for _, window in places]
            contexts = [
                _context(segments, grid, step, before).ravel() for grid, (step, _) in zip(grids, places, strict=True)
            ]
            classes = code(np.concatenate(contexts), np.concatenate([segments[grid].ravel() for grid in grids]))
            start = 0
            for grid, context in zip(grids, contexts, strict=True):
                stop = start + context.size
                segments[grid] = classes[start:stop].reshape(np.broadcast_shapes(*(axis.shape for axis in grid)))
                start = stop


def _chunks(height: int, width: int) -> Iterator[list[Pass]]:
    steps = list(nested(height, width))
    yield [step for step in steps if not 0 < step.distance <= FINE]
    yield from ([step] for step in steps if 0 < step.distance <= FINE)


def _places(shape: Sequence[int], window: tuple[slice, slice]) -> tuple[Index, Index]:
    return np.arange(shape[0])[window[0]], np.arange(shape[1])[window[1]]


def _context(segments: UInt8, grid: tuple[Index, ...], step: Pass, before: UInt8 | None) -> Index:
    """Below ``CONTEXTS``, of every place of ``grid``: frames, rows and columns as ``np.ix_`` gives them."""
    frames, rows, columns = grid
    context = np.zeros(np.broadcast_shapes(frames.shape, rows.shape, columns.shape), np.intp)
    if 0 < step.distance <= FINE:
        s = step.distance
        # Sides are multiples of four, so where one neighbour is beyond the border, the opposite one is not.
        up, down, left, right = rows - s, rows + s, columns - s, columns + s
        up, down = np.where(up < 0, down, up), np.where(down >= segments.shape[1], up, down)
        left, right = np.where(left < 0, right, left), np.where(right >= segments.shape[2], left, right)
        near = [(up, columns), (down, columns), (rows, left), (rows, right)]
        if step.corners:
            near = [(up, left), (up, right), (down, left), (down, right)]
        found = np.stack([segments[frames, y, x] for y, x in near], -1)
        votes = (found[..., None] == np.arange(CLASSES, dtype=np.uint8)).sum(-2)
        context += 1 + ((s - 1) * CLASSES + votes.argmax(-1)) * NEIGHBOURS + votes.max(-1) - 1
    return context + SPATIAL * (CLASSES if before is None else before[rows, columns][0].astype(np.intp))
