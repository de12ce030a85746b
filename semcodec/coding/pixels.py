"""Lossless coding of kept 8-bit RGB pixels of a few frames under any mask.

Colour is decorrelated reversibly: green, red minus green, blue minus green. Pixels are visited from a coarse grid to
a fine one, each pass predicted from the pixels around it that earlier passes gave; a missing pixel takes its
prediction, with less weight, so that holes do not stop the flow. The middle frame goes first; in the others a pixel
is predicted from the difference to that frame wherever this varies less around the pixel than the frame itself. How
much the surroundings vary also tells how far off the prediction will be: it is the context, and for each context the
encoder picks one of a fixed bank of tables. Both ends compute the same integers, so nothing but the picks is sent
beside the residuals, which go through any entropy stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from semcodec.coding.masks import Pass, coarsest, nested
from semcodec.errors import CorruptStream, UsageError
from semcodec.priors import Bits, Indexed, Table
from semcodec.types import Sink, Source

if TYPE_CHECKING:
    pass

Int32 = npt.NDArray[np.int32]
Index = npt.NDArray[np.intp]
Bool = npt.NDArray[np.bool_]
Window = tuple[slice, slice]
Shift = tuple[int, int]

KNOWN, FILLED = 8, 1
"""Weights of a received pixel and of a filled hole in a prediction."""

PICK_BITS = 5
SPREADS = (1, 2, 4, 6, 9, 14, 22, 36, 60)
"""Upper ends of the classes of local variation, in quarters of a grey level."""
CLASS_OF = np.searchsorted(SPREADS, np.arange(SPREADS[-1] + 1), side="right")
AROUND = 2
"""Classes of how many neighbours were received: none, one, more than one."""
COARSE = 2 * (AROUND + 1) * (len(SPREADS) + 1)
"""The first of the two contexts, green and colour, of the coarsest grid; those of the passes are below."""
CONTEXTS = COARSE + 2


def _bank() -> tuple[Table, ...]:
    """Two-sided geometric tables with a heavier tail, mean magnitude growing by 1.35 from 0.005, and a flat one.

    Only correctly rounded operations (products, ``fsum``), so that every machine builds the same integers.
    """
    tables = []
    mean = 0.005
    for _ in range((1 << PICK_BITS) - 1):
        half = 0.9 * _geometric(mean) + 0.1 * _geometric(3 * mean)
        p = np.r_[half[:0:-1], half[:-1]]
        freqs = 1 + np.floor(p * ((2**16 - 256) / fsum(p))).astype(np.int64)
        freqs[128] += 2**16 - int(freqs.sum())
        tables.append(Table(-128, freqs.astype(np.uint32)))
        mean *= 1.35
    return *tables, Table(-128, np.full(256, 256, np.uint32))


def _geometric(mean: float) -> npt.NDArray[np.float64]:
    masses: npt.NDArray[np.float64] = np.cumprod(np.r_[1.0, np.full(128, mean / (1 + mean))]) / (1 + 2 * mean)
    return masses


BANK = _bank()


@dataclass(frozen=True)
class _Step:
    """What one chunk codes: pixels of the frames ``chosen`` at the windows' places where ``keep`` is true.

    predicted: (3, n) of the n pixels' planes, or None on the coarsest grid, where each is predicted by the one before.
    context: (3, n), below ``CONTEXTS``.
    """

    chosen: Index
    windows: tuple[Window, ...]
    keep: tuple[Bool, ...]
    predicted: Int32 | None
    context: Index


class _Code(Protocol):
    def __call__(self, step: _Step) -> Int32:
        """The true planes (3, n) of the step's pixels."""


def write_pixels(frames: npt.NDArray[np.uint8], mask: Bool, sink: Sink, name: str = "pixels") -> None:
    """Send the pixels of ``frames`` (K, H, W, 3) uint8 where ``mask`` (K, H, W) bool is true; the mask is not sent.

    Raises UsageError on other shapes or dtypes.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise UsageError(f"pixels must be uint8 (K, H, W, 3), not {frames.dtype} {frames.shape}")
    if mask.dtype != np.bool_ or mask.shape != frames.shape[:3]:
        raise UsageError(f"a pixel mask must be bool {frames.shape[:3]}, not {mask.dtype} {mask.shape}")
    planes = np.ascontiguousarray(np.moveaxis(frames, 3, 0)[[1, 0, 2]], dtype=np.int32)
    planes[1:] -= planes[0]
    chunks: list[tuple[Index, Int32]] = []

    def code(step: _Step) -> Int32:
        true: Int32 = np.concatenate(
            [planes[:, :, y, x][:, step.chosen][:, keep] for (y, x), keep in zip(step.windows, step.keep, strict=True)],
            axis=1,
        )
        residual = np.diff(true, axis=1, prepend=0) if step.predicted is None else true - step.predicted
        chunks.append((step.context.ravel(), (((residual + 128) & 255) - 128).astype(np.int32).ravel()))
        return true

    _walk(mask, code)
    if not chunks:
        return
    seen = np.zeros(CONTEXTS * 256)
    for context, residual in chunks:
        seen += np.bincount(context * 256 + (residual + 128), minlength=seen.size)
    bits = -np.log2(np.stack([table.freqs for table in BANK], axis=1) / 2**16)
    picks = np.argmin(seen.reshape(CONTEXTS, 256) @ bits, axis=1).astype(np.int32)
    sink.symbols(f"{name}.tables", picks, Bits(PICK_BITS), side=True)
    for i, (context, residual) in enumerate(chunks):
        sink.symbols(f"{name}.{i}", residual, Indexed(BANK, picks[context]))


def read_pixels(mask: Bool, source: Source, name: str = "pixels") -> npt.NDArray[np.uint8]:
    """The inverse of ``write_pixels``: uint8 (K, H, W, 3), zero where ``mask`` (K, H, W) bool is false."""
    planes = np.zeros((3, *mask.shape), np.int32)
    if mask.any():
        picks = source.symbols(f"{name}.tables", CONTEXTS, Bits(PICK_BITS))
        if not 0 <= int(picks.min()) <= int(picks.max()) < len(BANK):
            raise CorruptStream(f"{name}: no such table; the stream is damaged, get it again")
    chunk = 0

    def code(step: _Step) -> Int32:
        nonlocal chunk
        context = step.context
        flat = source.symbols(f"{name}.{chunk}", context.size, Indexed(BANK, picks[context.ravel()]))
        chunk += 1
        if not -128 <= int(flat.min()) <= int(flat.max()) <= 127:
            raise CorruptStream(f"{name}: a residual is outside -128..127; the stream is damaged, get it again")
        residual = flat.reshape(context.shape)
        true = np.cumsum(residual, axis=1, dtype=np.int32) if step.predicted is None else step.predicted + residual
        # Modulo 256 is enough: green, and then red and blue given green, are bytes.
        true[0] &= 255
        true[1:] = ((true[1:] + true[0]) & 255) - true[0]
        start = 0
        for (y, x), keep in zip(step.windows, step.keep, strict=True):
            at = np.nonzero(keep)
            stop = start + at[0].size
            view = planes[:, :, y, x]
            view[:, step.chosen[at[0]], at[1], at[2]] = true[:, start:stop]
            start = stop
        return true

    _walk(mask, code)
    planes[1:] += planes[0]
    return np.ascontiguousarray(np.moveaxis(planes[[1, 0, 2]].astype(np.uint8), 0, 3)) * mask[..., None]


def _walk(mask: Bool, code: _Code) -> None:
    """Visit every kept pixel once, asking ``code`` for its value: the part that both ends share."""
    frames = mask.shape[0]
    if not mask.any():
        return
    middle = frames // 2
    reference = _Layer(mask, np.array([middle]))
    reference.visit(code, None)
    if frames > 1:
        _Layer(mask, np.delete(np.arange(frames), middle)).visit(code, reference)


class _Layer:
    """Frames that are visited together, with a margin of weight zero so that every pixel has four neighbours."""

    def __init__(self, mask: Bool, chosen: Index) -> None:
        self.chosen = chosen
        self.stride = stride = coarsest(*mask.shape[1:])
        self.mask = mask[chosen]
        margin = ((0, 0), (stride, stride), (stride, stride))
        self.weight = np.pad(np.where(self.mask, KNOWN, FILLED).astype(np.int32), margin)
        self.planes = np.zeros((3, *self.weight.shape), np.int32)

    def near(self, array: npt.NDArray[np.int32], window: Window, shift: Shift = (0, 0)) -> Int32:
        """The view of a padded array at a window's places, shifted."""
        (y, x), (top, left) = window, (self.stride + shift[0], self.stride + shift[1])
        height, width = self.mask.shape[1:]
        return array[..., top : top + height, left : left + width][..., y, x]

    def visit(self, code: _Code, reference: _Layer | None) -> None:
        first, *passes = nested(*self.mask.shape[1:])
        self._coarsest(code, first)
        for step in passes:
            windows, shifts = step.places, _shifts(step)
            keep = tuple(self.mask[:, y, x] for y, x in windows)
            guesses = [self._predict(window, shifts, reference) for window in windows]
            if any(k.any() for k in keep):
                predicted, context = (
                    np.concatenate([guess[i][:, k] for guess, k in zip(guesses, keep, strict=True)], axis=1)
                    for i in (0, 1)
                )
                values = code(_Step(self.chosen, windows, keep, predicted, context.astype(np.intp)))
            start = 0
            for window, k, (fill, _) in zip(windows, keep, guesses, strict=True):
                stop = start + int(np.count_nonzero(k))
                if stop > start:
                    fill[:, k] = values[:, start:stop]
                self.near(self.planes, window)[...] = fill
                start = stop

    def _coarsest(self, code: _Code, step: Pass) -> None:
        """In raster order over all frames; a hole takes the value before it, holes at the start the first value."""
        (window,) = step.places
        keep = self.mask[:, window[0], window[1]]
        if not keep.any():
            return
        count = int(np.count_nonzero(keep))
        context = np.broadcast_to(COARSE + np.array([[0], [1], [1]]), (3, count))
        values = code(_Step(self.chosen, (window,), (keep,), None, context))
        last = np.maximum(np.cumsum(keep.ravel()) - 1, 0)
        self.near(self.planes, window)[...] = values[:, last].reshape(3, *keep.shape)

    def _predict(self, window: Window, shifts: tuple[Shift, ...], reference: _Layer | None) -> tuple[Int32, Index]:
        """Prediction and context, each (3, K, h, w), of every place in a window, kept or not."""
        around = [self.near(self.planes, window, shift) for shift in shifts]
        weights = [self.near(self.weight, window, shift) for shift in shifts]
        predicted, spread = _interpolate(around, weights)
        if reference is not None:
            # Where both frames hold a pixel and its neighbours, their difference may vary less than the frame.
            before = [reference.near(reference.planes, window, shift) for shift in shifts]
            both = [
                weight * (reference.near(reference.weight, window, shift) == KNOWN) + (weight > 0)
                for weight, shift in zip(weights, shifts, strict=True)
            ]
            change, unrest = _interpolate([a - b for a, b in zip(around, before, strict=True)], both)
            still = (reference.near(reference.weight, window) == KNOWN) & (3 * unrest + 4 < 2 * spread)
            predicted = np.where(still, change + reference.near(reference.planes, window), predicted)
            spread = np.where(still, unrest, spread)
        np.clip(predicted[0], 0, 255, out=predicted[0])
        received = sum((weight == KNOWN).astype(np.intp) for weight in weights)
        context = CLASS_OF.take(spread, mode="clip")
        context += (len(SPREADS) + 1) * np.minimum(received, AROUND)
        context[1:] += COARSE // 2
        return predicted, context


def _shifts(step: Pass) -> tuple[Shift, ...]:
    """To the four neighbours, as two opposite pairs."""
    s = step.distance
    return ((-s, -s), (s, s), (-s, s), (s, -s)) if step.corners else ((0, -s), (0, s), (-s, 0), (s, 0))


def _interpolate(around: list[Int32], weights: list[Int32]) -> tuple[Int32, Int32]:
    """Weighted mean of two opposite pairs, favouring the pair that differs less, and the mean deviation from it x 4."""
    w0, w1 = weights[0] + weights[1], weights[2] + weights[3]
    # A pair that is not whole (weight zero beyond the border) says nothing about direction.
    step0 = abs(around[0] - around[1]) * (weights[0] * weights[1] > 0) + 2
    step1 = abs(around[2] - around[3]) * (weights[2] * weights[3] > 0) + 2
    sum0 = around[0] * weights[0] + around[1] * weights[1]
    sum1 = around[2] * weights[2] + around[3] * weights[3]
    total = w0 * step1 + w1 * step0
    mean = (2 * (sum0 * step1 + sum1 * step0) + total) // (2 * total)
    deviation = sum(abs(value - mean) * weight for value, weight in zip(around, weights, strict=True))
    return mean, 4 * deviation // (w0 + w1)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from semcodec._moved import moved_name

        return moved_name(__name__, name)
