"""Square patches of an image and the pictures that are made of some of them; for any method that sends patches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semcodec.errors import CorruptStream

if TYPE_CHECKING:
    from semcodec.interfaces import Partial

Rgb = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]


def spread(mask: Bool, side: int) -> Bool:
    """A mask of patches (rows, columns) as one of pixels (rows * side, columns * side)."""
    return mask.repeat(side, axis=0).repeat(side, axis=1)


def split(image: Rgb, side: int) -> Rgb:
    """An image (H, W, 3) as its patches (rows, columns, side, side, 3): a view."""
    height, width, channels = image.shape
    return image.reshape(height // side, side, width // side, side, channels).swapaxes(1, 2)


def mosaic_shape(count: int, side: int) -> tuple[int, int]:
    """Height and width of the mosaic of ``count`` patches, about as high as wide."""
    columns = math.ceil(math.sqrt(count))
    return math.ceil(count / columns) * side, columns * side


def mosaic(image: Rgb, mask: Bool, side: int) -> Rgb:
    """The patches that ``mask`` (rows, columns) keeps, at least one, side by side in raster order: one picture.

    Places left over at the end repeat the last patch, which costs a codec little.
    """
    chosen = split(image, side)[mask]
    height, width = mosaic_shape(len(chosen), side)
    places = np.minimum(np.arange(height * width // side**2), len(chosen) - 1)
    tiles = chosen[places].reshape(height // side, width // side, side, side, 3)
    return np.ascontiguousarray(tiles.swapaxes(1, 2).reshape(height, width, 3))


def unmosaic(picture: Rgb, mask: Bool, side: int) -> Rgb:
    """The inverse of ``mosaic``: (H, W, 3), zero where nothing was kept. Raises CorruptStream on another size."""
    count = int(mask.sum())
    height, width = mosaic_shape(count, side)
    if picture.shape != (height, width, 3):
        raise CorruptStream(f"a picture of {picture.shape[1]}x{picture.shape[0]} where {width}x{height} is due")
    image = np.zeros((mask.shape[0] * side, mask.shape[1] * side, 3), np.uint8)
    split(image, side)[mask] = split(picture, side).reshape(-1, side, side, 3)[:count]
    return image


def whole(partial: Partial) -> Partial:
    """{"patches": (B, K, 3, p, p), "index": (B, K), "grid": (B, h, w)} as {"image": (B, 3, h * p, w * p)}, zero and

    not present where no patch was received. Anything else as it is.
    """
    from semcodec.interfaces import Partial

    if "patches" not in partial.features:
        return partial
    patches, index, grid = (partial.features[name] for name in ("patches", "index", "grid"))
    batch, _, channels, side, _ = patches.shape
    rows, columns = grid.shape[1:]
    placed = patches.new_zeros(batch, rows * columns, channels, side, side)
    placed.scatter_(1, index[:, :, None, None, None].expand_as(patches), patches)
    image = placed.view(batch, rows, columns, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    present = grid.to(patches.dtype).repeat_interleave(side, 1).repeat_interleave(side, 2)
    return Partial({"image": image.reshape(batch, channels, rows * side, columns * side)}, {"image": present[:, None]})
