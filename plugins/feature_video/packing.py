"""Channels as tiles of a frame, and back; numpy alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.coding.video_params import LEAST

Shape = tuple[int, int, int, int]
"""(C, T, H, W): channels, moments, height and width."""
Values = npt.NDArray[np.unsignedinteger[Any]]
ALIGN = 8
"""Of which a frame's sides are multiples: the least block of the codecs."""


@dataclass(frozen=True)
class Tiles:
    """One tensor's channels, row by row in ``columns``, from the line ``top`` on."""

    shape: Shape
    columns: int
    top: int

    @property
    def rows(self) -> int:
        """Rows of tiles, of which the last may not be full."""
        return -(-self.shape[0] // self.columns)


@dataclass(frozen=True)
class Layout:
    """Frames of ``count`` moments, and where each tensor's tiles are."""

    count: int
    height: int
    width: int
    tiles: Mapping[str, Tiles]

    def pack(self, tensors: Mapping[str, Values]) -> Values:
        """Tensors (C, T, H, W) to frames (T, height, width); what no tile covers is their mean."""
        level = np.rint(np.mean([array.mean() for array in tensors.values()]))
        frames = np.full((self.count, self.height, self.width), level, next(iter(tensors.values())).dtype)
        for name, tiles in self.tiles.items():
            channels, count, height, width = tiles.shape
            filled = np.full((tiles.rows * tiles.columns, count, height, width), level, frames.dtype)
            filled[:channels] = tensors[name]
            grid = filled.reshape(tiles.rows, tiles.columns, count, height, width).transpose(2, 0, 3, 1, 4)
            self._part(frames, tiles)[...] = grid.reshape(count, tiles.rows * height, tiles.columns * width)
        return frames

    def unpack(self, frames: Values) -> dict[str, Values]:
        """The inverse."""
        found = {}
        for name, tiles in self.tiles.items():
            channels, count, height, width = tiles.shape
            grid = self._part(frames, tiles).reshape(count, tiles.rows, height, tiles.columns, width)
            found[name] = grid.transpose(1, 3, 0, 2, 4).reshape(-1, count, height, width)[:channels]
        return found

    @staticmethod
    def _part(frames: Values, tiles: Tiles) -> Values:
        _, _, height, width = tiles.shape
        return frames[:, tiles.top : tiles.top + tiles.rows * height, : tiles.columns * width]


def lay_out(shapes: Mapping[str, Shape]) -> Layout:
    """Every tensor's tiles in one frame, one tensor below the other, all about as wide as the largest one's."""
    largest = max(shapes.values(), key=math.prod)
    width = _columns(largest) * largest[3]
    placed, top = {}, 0
    for name, shape in shapes.items():
        columns = max(1, min(shape[0], width // shape[3]))
        placed[name] = Tiles(shape, columns, top)
        top += placed[name].rows * shape[2]
    width = max(tiles.columns * tiles.shape[3] for tiles in placed.values())
    return Layout(largest[1], _side(top), _side(width), placed)


def _columns(shape: Shape) -> int:
    """Of a frame that is about as wide as high and leaves few places empty."""
    channels, _, height, width = shape
    square = math.sqrt(channels * height / width)

    def cost(columns: int) -> tuple[float, float]:
        empty = -(-channels // columns) * columns - channels
        return empty / channels, abs(math.log(columns / square))

    near: Iterable[int] = range(max(1, math.ceil(square / 2)), min(channels, math.ceil(2 * square)) + 1)
    return min(near, key=cost, default=channels)


def _side(pixels: int) -> int:
    return max(LEAST, -(-pixels // ALIGN) * ALIGN)
