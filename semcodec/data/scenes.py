"""``digits-scenes``: still scenes of handwritten digits over textured background, with class, boxes and masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semcodec.data.base import SPLITS, Dataset
from semcodec.data.contents import digest_of
from semcodec.data.textures import Float32, base_colour, digit_images, seeds_for, texture, uniform, upsample
from semcodec.errors import DataError, UsageError
from semcodec.specs import BOXES, MASKS, InputRequest

if TYPE_CHECKING:
    from semcodec.boxes import Boxes
    from semcodec.data.base import Labels, UInt8

VERSION = 1
"""Rises when samples change: they are made from name, split and number alone."""
SIZES = {"train": 10_000, "test": 1_000}
CLASSES = [str(digit) for digit in range(10)]
BACKGROUND = "background"

_SALTS = {"train": 0x5CE4E5, "test": 0x5CE4E6}
_MAIN = (0.42, 0.60)  # side of the main digit's square in shorter sides of the scene
_SMALL = (0.22, 0.32)  # and of a distractor's
_OVERLAP = 0.15  # of a distractor's square that may be covered
_TRIES = 12
_GLYPH = 32
_INK = 0.5  # alpha from which a box counts a point as ink
_CHUNK = 32  # scenes made at a time


class DigitsScenes(Dataset):
    """Scenes made on the fly: a main digit, which is the label, and none to two smaller distractors.

    Where boxes are requested, the labels are those of every digit's ink; where masks are, that ink's own pixels, of the
    class of their digit, and the rest is of one more class, the last: "background".

    Digits of train and test are disjoint. Scene ``i`` of a split is the same in every batch, run and machine.
    Raises UsageError for an unknown split and DataError for scenes too small to hold the digits.
    """

    split: str

    def __init__(self, split: str, request: InputRequest) -> None:
        if split not in SPLITS:
            raise UsageError(f"digits-scenes has the splits train and test, not {split!r}")
        if request.frames is not None:
            raise DataError("digits-scenes holds still scenes where the model takes clips; try digits-motion")
        if min(request.height, request.width) < 24:
            raise DataError(f"digits-scenes needs sides of at least 24 pixels, not {request}")
        self.name, self.kind, self.classes = "digits-scenes", "image", list(CLASSES)
        self.split, self.height, self.width = split, request.height, request.width
        self._labels = request.labels
        if self._labels == MASKS:
            self.classes.append(BACKGROUND)

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("classification", "detection", "segmentation", "retrieval")

    def __len__(self) -> int:
        return SIZES[self.split]

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        rows = self._checked(indices)
        pixels = np.empty((len(rows), self.height, self.width, 3), np.uint8)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            pixels[part] = self._render(seeds_for(_SALTS[self.split], rows[part]))
        if self._labels == MASKS:
            return pixels, self.masks(indices)
        if self._labels == BOXES:
            return pixels, [self._in_pixels(scene) for scene in self.boxes(indices)]
        labels = digit_images(self.split)[1]
        return pixels, labels[self._layout(seeds_for(_SALTS[self.split], rows))[0][:, 0]]

    def boxes(self, indices: Sequence[int]) -> list[Float32]:
        """For each scene float32 (digits, 5): class, centre x and y, width and height over the scene's; main first."""
        which, sides, corners, present = self._layout(seeds_for(_SALTS[self.split], self._checked(indices)))
        bounds, labels = _glyphs(self.split)[1][which], digit_images(self.split)[1][which]
        size = np.array([self.width, self.height])
        low = (corners + bounds[..., :2] * sides[..., None]) / size
        high = (corners + bounds[..., 2:] * sides[..., None]) / size
        rows = np.concatenate([labels[..., None], (low + high) / 2, high - low], axis=-1).astype(np.float32)
        return [scene[there] for scene, there in zip(rows, present, strict=True)]

    def masks(self, indices: Sequence[int]) -> list[UInt8]:
        """For each scene uint8 (H, W): the digit whose ink a pixel shows, ``len(CLASSES)`` where there is none."""
        seeds = seeds_for(_SALTS[self.split], self._checked(indices))
        out = np.full((len(seeds), self.height, self.width), len(CLASSES), np.uint8)
        labels = digit_images(self.split)[1]
        layout = self._layout(seeds)
        for rows, k, at, alpha in self._strokes(layout):
            there = out[at]
            out[at] = np.where(alpha >= _INK, labels[layout[0][rows, k]].astype(np.uint8)[:, None, None], there)
        return list(out)

    def sizes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        return [(self.width, self.height)] * len(indices)

    def _in_pixels(self, rows: Any) -> Boxes:
        from semcodec.boxes import Boxes, corners

        return Boxes.of(corners(rows[:, 1:] * np.array([self.width, self.height] * 2, np.float32)), rows[:, 0])

    def content(self, count: int) -> str:
        return digest_of([self.name, VERSION, self.split, count])

    def ids(self, indices: Sequence[int]) -> list[str]:
        return [f"digits-scenes/{self.split}/{i}" for i in self._checked(indices)]

    def _checked(self, indices: Sequence[int]) -> npt.NDArray[np.int64]:
        array = np.asarray(indices, dtype=np.int64).reshape(-1)
        if array.size and not 0 <= array.min() <= array.max() < len(self):
            raise IndexError(f"digits-scenes has samples 0 to {len(self) - 1} in its {self.split} split")
        return array

    def _layout(
        self, seeds: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.int64], Float32, Float32, npt.NDArray[np.bool_]]:
        """Which digits, sides of their squares in pixels, corners x, y (B, 3, 2), which are there; else (B, 3)."""
        shorter = min(self.height, self.width)
        u = uniform(seeds, 12, salt=100).astype(np.float32)
        which = (u[:, :3] * len(digit_images(self.split)[1])).astype(np.int64)
        low, high = np.array([_MAIN, _SMALL, _SMALL], np.float32).T
        sides = (low + (high - low) * u[:, 3:6]) * np.float32(shorter)
        room = np.array([self.width, self.height], np.float32) - sides[..., None]
        corners = room * u[:, 6:12].reshape(-1, 3, 2)
        number = (uniform(seeds, 1, salt=101) * 3).astype(np.int64)
        for k in (1, 2):
            draws = uniform(seeds, 2 * _TRIES, salt=101 + k).astype(np.float32)
            tries = room[:, None, k] * draws.reshape(-1, _TRIES, 2)
            covered = np.zeros(tries.shape[:2], np.float32)
            for other in range(k):
                ends = np.minimum(tries + sides[:, None, k, None], (corners + sides[..., None])[:, None, other])
                common = np.maximum(ends - np.maximum(tries, corners[:, None, other]), 0)
                covered = np.maximum(covered, common[..., 0] * common[..., 1] / sides[:, k, None] ** 2)
            best = np.argmax(np.where(covered <= _OVERLAP, 2.0, 1.0 - covered), axis=1)  # the first good one
            corners[:, k] = tries[np.arange(len(tries)), best]
        return which, sides, corners, np.arange(3) <= number

    def _render(self, seeds: npt.NDArray[np.uint64]) -> UInt8:
        which, sides, corners, present = self._layout(seeds)
        scene = texture(seeds, self.height, self.width)
        base = base_colour(seeds)
        relief = (scene - base[:, None, None]) * np.float32(0.4)  # digits keep some of the ground's texture
        dark = base[:, 0] + base[:, 1] + base[:, 2] > 3 * 127.5
        tints = uniform(seeds, 9, salt=110).astype(np.float32).reshape(-1, 3, 3) * np.float32(50)
        for rows, k, at, alpha in self._strokes((which, sides, corners, present)):
            colour = np.where(dark[rows, None], tints[rows, k], 255 - tints[rows, k])[:, None, None]
            ground = scene[at]
            scene[at] = ground + (colour + relief[at] - ground) * alpha[..., None]
        return np.rint(np.clip(scene, 0, 255)).astype(np.uint8)

    def _strokes(
        self, layout: tuple[npt.NDArray[np.int64], Float32, Float32, npt.NDArray[np.bool_]]
    ) -> Iterator[tuple[npt.NDArray[np.int64], int, Any, Float32]]:
        """Scenes that have a digit of each rank, the rank, an index of windows in them and its alpha there.

        In the order in which they are painted: the main digit is on top.
        """
        which, sides, corners, present = layout
        for k in (2, 1, 0):
            rows = np.flatnonzero(present[:, k])
            if not rows.size:
                continue
            window = int((_MAIN if k == 0 else _SMALL)[1] * min(self.height, self.width)) + 2
            window = min(window, self.height, self.width)
            first = np.minimum(corners[rows, k].astype(np.int64), (self.width - window, self.height - window))
            x, y = (first[:, axis, None] + np.arange(window) for axis in (0, 1))
            alpha = _sample(_glyphs(self.split)[0][which[rows, k]], x, y, corners[rows, k], sides[rows, k])
            yield rows, k, (rows[:, None, None], y[:, :, None], x[:, None, :]), alpha


@lru_cache(maxsize=2)
def _glyphs(split: str) -> tuple[Float32, Float32]:
    """Digits as alpha (N, 32, 32) with firm strokes, and their ink's bounds x0, y0, x1, y1 over the square's side."""
    alpha = np.clip((upsample(digit_images(split)[0], _GLYPH) - np.float32(0.35)) / np.float32(0.4), 0, 1)
    bounds = []
    for axis in (1, 2):  # columns first
        ink = (alpha >= _INK).any(axis=axis)
        bounds.append((ink.argmax(axis=1), _GLYPH - ink[:, ::-1].argmax(axis=1)))
    (x0, x1), (y0, y1) = bounds
    return alpha, (np.stack([x0, y0, x1, y1], axis=1) / _GLYPH).astype(np.float32)


def _sample(
    glyphs: Float32, x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], corners: Float32, sides: Float32
) -> Float32:
    """Alpha (B, window, window) at pixels x, y (B, window) of glyphs stretched over their squares, bilinear."""
    sampled = np.pad(glyphs, ((0, 0), (1, 1), (1, 1)))
    for axis, (pixels, corner) in ((1, (y, corners[:, 1:])), (2, (x, corners[:, :1]))):
        position = (pixels.astype(np.float32) + np.float32(0.5) - corner) * (np.float32(_GLYPH) / sides[:, None])
        position = np.clip(position + np.float32(0.5), 0, _GLYPH + 1)  # +1 for the padding, -0.5 to the points' centres
        low = np.minimum(position.astype(np.int64), _GLYPH)
        t = position - low
        along = (slice(None), slice(None), None) if axis == 1 else (slice(None), None, slice(None))
        near, far = (np.take_along_axis(sampled, (low + step)[along], axis=axis) for step in (0, 1))
        sampled = near + (far - near) * t[along].astype(np.float32)
    return sampled
