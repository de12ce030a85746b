"""Masks of classes, one for each pixel, and how they follow a picture into a model's input and back.

A mask is uint8 (H, W): the number of each pixel's class, or ``IGNORED`` where it is not known and counts for nothing.
Nothing is interpolated: every pixel has the class of the one that its middle lies in.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semcodec.boxes import Letterbox

if TYPE_CHECKING:
    from torch import Tensor

    UInt8 = npt.NDArray[np.uint8]

IGNORED = 255
"""Of pixels whose class is not known."""
MOST_CLASSES = 255


def resized(mask: UInt8, width: int, height: int) -> UInt8:
    """A mask of another size, each pixel of the class where its middle lies."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        for new, old in ((height, mask.shape[0]), (width, mask.shape[1]))
    )
    return np.asarray(mask[rows[:, None], columns[None]])


def to_input(mask: UInt8, width: int, height: int) -> UInt8:
    """A picture's mask where that lies, letterboxed, in an input of ``width`` x ``height``; ``IGNORED`` around it."""
    place = Letterbox.of(mask.shape[1], mask.shape[0], width, height)
    across, down = place.inside
    out = np.full((height, width), IGNORED, np.uint8)
    out[place.top : place.top + down, place.left : place.left + across] = resized(mask, across, down)
    return out


def of_picture(mask: UInt8, size: tuple[int, int]) -> UInt8:
    """The part of an input's mask (h, w) that a letterboxed picture of ``size``, width and height, covers."""
    place = Letterbox.of(*size, mask.shape[1], mask.shape[0])
    across, down = place.inside
    return mask[place.top : place.top + down, place.left : place.left + across]


def targets(masks: Sequence[UInt8], like: Tensor) -> Tensor:
    """Masks of pictures as int64 (B, H, W), where these lie in inputs of the size (..., H, W) of a tensor."""
    import torch

    height, width = like.shape[-2:]
    there = np.stack([to_input(mask, width, height) for mask in masks])
    return torch.from_numpy(there).to(like.device, torch.int64)


def pixel_loss(logits: Tensor, masks: Sequence[UInt8]) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy over the pixels whose class is known, of logits (B, classes, H, W) as large as the input.

    masks: of the pictures. Figures have "accuracy", the share of these pixels that are right.
    """
    import torch.nn.functional as F

    wanted = targets(masks, logits)
    known = wanted != IGNORED
    count = known.sum().clamp(min=1)
    loss = F.cross_entropy(logits.float(), wanted, ignore_index=IGNORED, reduction="sum") / count
    right = ((logits.argmax(1) == wanted) & known).sum() / count
    return loss, {"accuracy": right.item()}


def colour(number: int) -> tuple[int, int, int]:
    """Of a class in pictures: hues far apart, dark for the first, as backgrounds are."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.75, 0.35 if number == 0 else 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def palette() -> list[int]:
    """Red, green and blue of every number a mask may have, for PNG: ``IGNORED`` is white."""
    colours = [colour(number) for number in range(MOST_CLASSES)] + [(255, 255, 255)]
    return [value for one in colours for value in one]


def painted(mask: UInt8, image: Any = None, weight: float = 0.55) -> UInt8:
    """A mask in its colours, uint8 (H, W, 3), or these over an image of its size."""
    coloured = np.array(palette(), np.uint8).reshape(-1, 3)[mask]
    if image is None:
        return coloured
    return np.rint(weight * coloured + (1 - weight) * np.asarray(image)).astype(np.uint8)
