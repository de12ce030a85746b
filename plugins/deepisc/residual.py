"""The residual between a frame and what is synthesised of it: where it is sent, how it is quantised and how coded.

Both ends derive the same random pixels from the number of the frame and of the pixel, so that where they are costs no
byte. Symbols are the difference of 8-bit levels over the step, rounded to the nearest integer, and in the middle of two
to the one nearer zero, so that at a step of 2 they fit into 8 bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.coding import pixels
from semcodec.coding.bits import pack_bits, packed_size, unpack_bits
from semcodec.errors import CorruptStream
from semcodec.interfaces import Sink, Source
from semcodec_plugins.deepisc.spec import largest, residual_bits

UInt8 = npt.NDArray[np.uint8]
Int16 = npt.NDArray[np.int16]
Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

MIDDLE = 128
"""What stands for a residual of zero where residuals are coded as a picture."""


def positions(index: npt.NDArray[np.integer[Any]], height: int, width: int, count: int) -> Bool:
    """The ``count`` random pixels of each frame numbered ``index`` (k,): bool (k, H, W)."""
    mask = np.zeros((len(index), height * width), np.bool_)
    for row, number in enumerate(index):
        mask[row, _order(int(number), height * width)[:count]] = True
    return mask.reshape(-1, height, width)


@lru_cache(maxsize=64)
def _order(frame: int, pixels: int) -> Index:
    """A random order of a frame's pixels: by splitmix64 of both numbers (Steele, Lea, Flood, 2014)."""
    numbers = np.arange(1, pixels + 1, dtype=np.uint64) + (np.uint64(frame) << np.uint64(32))
    z = numbers * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    order = np.argsort(z ^ (z >> np.uint64(31)), kind="stable")
    order.flags.writeable = False
    return order


def quantise(frames: UInt8, synthesised: UInt8, mask: Bool, step: int) -> Int16:
    """Symbols (n, 3) of the pixels of ``frames`` (k, H, W, 3) where ``mask`` (k, H, W) is true, in raster order."""
    apart = frames[mask].astype(np.int16) - synthesised[mask]
    symbols: Int16 = np.sign(apart) * ((np.abs(apart) + (step - 1) // 2) // step)
    return symbols


def correct(synthesised: UInt8, mask: Bool, symbols: Int16, step: int) -> UInt8:
    """``synthesised`` (k, H, W, 3) and the residual, clamped to 8 bits, where there is one."""
    out = synthesised.copy()
    out[mask] = np.clip(synthesised[mask] + symbols.astype(np.int32) * step, 0, 255)
    return out


def write_packed(symbols: Int16, step: int, sink: Sink) -> None:
    """Past the entropy stage, each symbol in ``residual_bits(step)``."""
    if symbols.size:
        sink.blob("residual", pack_bits(symbols.ravel() + largest(step), residual_bits(step)))


def read_packed(mask: Bool, step: int, source: Source) -> Int16:
    """What ``write_packed`` wrote of the pixels where ``mask`` (k, H, W) is true, (n, 3). Raises CorruptStream."""
    count = 3 * int(mask.sum())
    if not count:
        return np.zeros((0, 3), np.int16)
    bits = residual_bits(step)
    symbols = unpack_bits(source.blob("residual", packed_size(bits, count)), bits, count, "residual").astype(np.int32)
    symbols -= largest(step)
    if symbols.max() > largest(step):
        raise CorruptStream("residual: a difference of more than 255 levels; the stream is damaged, get it again")
    return symbols.astype(np.int16).reshape(-1, 3)


def write_coded(symbols: Int16, mask: Bool, sink: Sink) -> None:
    """Through the entropy stage, as the picture that the residuals make, in which neighbours are alike."""
    picture = np.zeros((*mask.shape, 3), np.uint8)
    picture[mask] = symbols + MIDDLE
    pixels.write_pixels(picture, mask, sink, "residual")


def read_coded(mask: Bool, step: int, source: Source) -> Int16:
    """What ``write_coded`` wrote of the same pixels, (n, 3). Raises CorruptStream."""
    symbols = pixels.read_pixels(mask, source, "residual")[mask].astype(np.int16) - MIDDLE
    if symbols.size and int(np.abs(symbols).max()) > largest(step):
        raise CorruptStream("residual: a difference of more than 255 levels; the stream is damaged, get it again")
    return symbols
