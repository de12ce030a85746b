"""Square patches of an image, and the picture that some of them make; for any method that sends patches.

Importing this imports no torch: spec functions use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semcodec.errors import CorruptStream
from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, image_size

if TYPE_CHECKING:
    from semcodec.types import Partial

Rgb = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

SMALL, FINE, COARSE = 128, 8, 16


def usual_side(height: int, width: int) -> int:
    """Of a patch, where nothing says: 8 pixels in images of up to 128 a side, else 16."""
    return FINE if max(height, width) <= SMALL else COARSE


def patch_grid(features: FeatureSpec, side: int) -> tuple[int, tuple[int, int]]:
    """Side of a patch in pixels, of which 0 asks for the usual, and how many there are down and across an image.

    Raises SpecMismatch for anything but an RGB image of a known size.
    """
    height, width = image_size(features)
    side = side or usual_side(height, width)
    return side, (height // side, width // side)


def patch_spec(features: FeatureSpec, side: int | None) -> EncoderSpec:
    """What is sent and restored of patches of ``side`` pixels (0: the usual; None: known later) of an image (3, H, W).

    Restored are "patches" (K, 3, p, p), their places "index" (K,) in raster order, and "grid" (h, w), bool, where they
    lie. Raises SpecMismatch for anything else than pixels, and for sizes that ``side`` does not divide.
    """
    height, width = image_size(features)
    if side == 0:
        side = usual_side(height, width)
    if side is not None and (height % side or width % side):
        raise SpecMismatch(f"images of {height}x{width} are not made of patches of {side}x{side}")
    grid = TensorSpec((height // side, width // side) if side is not None else (None, None), "bool")
    return EncoderSpec(
        latent={"mask": grid, "patches": TensorSpec((None, side, side, 3), "uint8")},
        restored={
            "patches": TensorSpec((None, 3, side, side)),
            "index": TensorSpec((None,), "int64"),
            "grid": grid,
        },
    )


def split(image: Rgb, side: int) -> Rgb:
    """An image (H, W, 3) as its patches (h, w, p, p, 3): a view."""
    height, width, channels = image.shape
    return image.reshape(height // side, side, width // side, side, channels).swapaxes(1, 2)


def join(patches: Rgb) -> Rgb:
    """The inverse of ``split``."""
    down, across, side = patches.shape[:3]
    return np.ascontiguousarray(patches.swapaxes(1, 2)).reshape(down * side, across * side, -1)


def spread(mask: Bool, side: int) -> Bool:
    """A mask of patches (h, w) as one of pixels (H, W)."""
    return mask.repeat(side, axis=0).repeat(side, axis=1)


def picture_of(image: Rgb, mask: Bool, side: int) -> Rgb:
    """The picture that carries the patches of (H, W, 3) that ``mask`` (h, w) keeps, at least one: the smallest
    rectangle that holds them, its dropped patches filled so that a picture codec has next to nothing to code there."""
    return join(fill(split(image, side), mask)[box(mask)])


def picture_size(mask: Bool, side: int) -> int:
    """Pixels of that picture."""
    return int(mask[box(mask)].size) * side**2


def pasted(picture: Rgb, mask: Bool, side: int) -> Rgb:
    """The kept patches of such a picture in their places, (H, W, 3), zero elsewhere. Raises CorruptStream."""
    height, width = (n * side for n in mask[box(mask)].shape)
    if picture.shape[:2] != (height, width):
        raise CorruptStream(f"a picture of {picture.shape[1]}x{picture.shape[0]} where {width}x{height} is due")
    patches = np.zeros((*mask.shape, side, side, 3), np.uint8)
    patches[box(mask)] = split(picture, side)
    patches[~mask] = 0
    return join(patches)


def box(mask: Bool) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle that holds every kept patch."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def fill(patches: Rgb, mask: Bool) -> Rgb:
    """Patches (h, w, p, p, 3) with each dropped one of the mean colour of the edges above it and to its left.

    Picture codecs work in raster order and predict a block so, so a dropped patch has next to nothing left to code.
    """
    filled = patches.copy()
    for y, x in zip(*np.nonzero(~mask), strict=True):
        above, left = filled[max(y - 1, 0), x, -1], filled[y, max(x - 1, 0), :, -1]
        near = [edge for edge, there in ((above, y > 0), (left, x > 0)) if there]
        filled[y, x] = np.round(np.mean(near, (0, 1))) if near else 128
    return filled


def whole(partial: Partial) -> Partial:
    """Patches {"patches": (B, K, 3, p, p), "index": (B, K), "grid": (B, h, w)} as an image, zero and not present where
    none was received. Anything else is left as it is."""
    from semcodec.types import Partial

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
