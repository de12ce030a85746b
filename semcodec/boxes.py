"""Boxes of objects, and how an image is fitted to a detector's input.

Box coordinates are pixels as real numbers: a box that covers the whole of an image goes from 0, 0 to its width, height.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.errors import DataError
from semcodec.tensors import Valued

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import Tensor

GREY = 114
"""Of what a letterboxed picture does not cover, as YOLO has it."""


@dataclass(frozen=True, eq=False)
class Boxes(Valued):
    """Boxes of one image.

    xyxy: left, top, right, bottom in pixels, float32 (n, 4). classes: int64 (n,). scores: float32 (n,) in [0, 1], of
    what a detector found, best first; None of what is known to be there. Arrays of numpy where there is no torch.
    Raises DataError for other shapes.
    """

    xyxy: Tensor
    classes: Tensor
    scores: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.xyxy)
        sizes = [tuple(t.shape) for t in (self.classes, self.scores) if t is not None]
        if tuple(self.xyxy.shape) != (count, 4) or any(size != (count,) for size in sizes):
            raise DataError(f"boxes are (n, 4) with classes and scores (n,), not {tuple(self.xyxy.shape)} with {sizes}")

    @classmethod
    def of(cls, xyxy: Any, classes: Any) -> Boxes:
        """Of arrays of any floats and integers: tensors where there is torch."""
        xyxy, classes = np.asarray(xyxy, np.float32), np.asarray(classes, np.int64)
        try:
            import torch
        except ImportError:
            return cls(xyxy, classes)
        return cls(torch.from_numpy(xyxy), torch.from_numpy(classes))

    @classmethod
    def none(cls, scored: bool = False) -> Boxes:
        """No box at all."""
        import torch

        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0) if scored else None)

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, rows: Tensor | slice) -> Boxes:
        """Those that an index tensor, a mask or a slice chooses."""
        return Boxes(self.xyxy[rows], self.classes[rows], None if self.scores is None else self.scores[rows])

    def to(self, device: torch.device | str) -> Boxes:
        """The same on another device."""
        scores = None if self.scores is None else self.scores.to(device)
        return Boxes(self.xyxy.to(device), self.classes.to(device), scores)

    def only(self, classes: Iterable[int]) -> Boxes:
        """Those of some classes."""
        import torch

        return self[torch.isin(self.classes, torch.as_tensor(list(classes), device=self.classes.device))]

    def above(self, score: float) -> Boxes:
        """Those of at least this score."""
        assert self.scores is not None
        return self[self.scores >= score]


@dataclass(frozen=True)
class Letterbox:
    """How a source of ``width`` x ``height`` pixels lies in a detector's input: scaled, then moved by left and top."""

    scale: float
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of(cls, width: int, height: int, input_width: int, input_height: int) -> Letterbox:
        """The source as large as fits, in the middle; an odd pixel of padding goes to the right or the bottom."""
        scale = min(input_width / width, input_height / height)
        across, down = cls._inside(scale, width), cls._inside(scale, height)
        return cls(scale, (input_width - across) // 2, (input_height - down) // 2, width, height)

    @staticmethod
    def _inside(scale: float, side: int) -> int:
        return max(1, round(side * scale))

    @property
    def inside(self) -> tuple[int, int]:
        """Width and height of the source in the input, whole pixels, at least one."""
        return self._inside(self.scale, self.width), self._inside(self.scale, self.height)

    def to_input(self, boxes: Boxes) -> Boxes:
        """Source pixels to pixels of the input."""
        return replace(boxes, xyxy=boxes.xyxy * self.scale + self._shift(boxes.xyxy))

    def to_source(self, boxes: Boxes) -> Boxes:
        """Pixels of the input to source pixels, cut off at the source's edges."""
        moved = (boxes.xyxy - self._shift(boxes.xyxy)) / self.scale
        edges = _row([self.width, self.height] * 2, moved)
        if isinstance(moved, np.ndarray):
            return replace(boxes, xyxy=np.minimum(moved.clip(0), edges))
        return replace(boxes, xyxy=moved.clamp(min=0).minimum(edges))

    def _shift(self, like: Tensor) -> Tensor:
        return _row([self.left, self.top] * 2, like)


def _row(values: list[int], like: Tensor) -> Tensor:
    """Values in the form, dtype and place of others."""
    if isinstance(like, np.ndarray):
        return np.array(values, like.dtype)
    return like.new_tensor(values)


def corners(centred: Tensor) -> Tensor:
    """Boxes (..., 4), a tensor or an array, from centre x, y, width, height to left, top, right, bottom."""
    middle, half = centred[..., :2], centred[..., 2:] / 2
    if isinstance(centred, np.ndarray):
        return np.concatenate((middle - half, middle + half), -1)
    import torch

    return torch.cat((middle - half, middle + half), -1)


def centred(xyxy: Tensor) -> Tensor:
    """The inverse of ``corners``."""
    import torch

    low, high = xyxy[..., :2], xyxy[..., 2:]
    return torch.cat(((low + high) / 2, high - low), -1)
