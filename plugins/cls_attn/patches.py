"""Some of an image's patches as bytes: without loss, or as a picture by a real image codec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semcodec import masks as mask_coding
from semcodec import pictures, pixels
from semcodec.errors import CorruptStream
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial, Sink, Source
from semcodec.specs import FeatureSpec

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
RAW = "raw"


class Patches(Encoder):
    """Kept patches of an image, at 8 bits. Without a model on the device all patches score alike.

    features: {"image": float32 (3, H, W) in [0, 1]}. side: of a patch, in pixels; it divides H and W.

    What is restored: {"patches": (1, K, 3, p, p) in [0, 1], "index": (1, K) int64 in raster order, "grid": (1, h, w)
    bool, where they lie in the image of h x w patches}.
    """

    def __init__(self, features: FeatureSpec, *, side: int, **params: Any) -> None:
        _, height, width = features["image"].shape
        assert height is not None and width is not None
        self.side, self.grid = side, (height // side, width // side)
        self.units = {"keep": self.grid[0] * self.grid[1]}

    def analyse(self, features: Features) -> Analysis:
        return Analysis(features, {"keep": torch.ones(len(features["image"]), self.units["keep"])})

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        latents = []
        for row, image in enumerate(pixels.eight_bits(features["image"])):
            mask = masks["keep"][row].cpu().numpy().reshape(self.grid) if "keep" in masks else np.ones(self.grid, bool)
            latent = Latent({"mask": mask}, {"coding": params["patches"]})
            if params["patches"] == RAW:
                latent.symbols["patches"] = split(image, self.side)[mask]
            else:
                # The picture is what is lossy here, so it belongs to encode, not to write.
                part = join(fill(split(image, self.side), mask)[box(mask)])
                latent.side["picture"] = pictures.encode_picture(part, params["patches"], params["quality"])
            latents.append(latent)
        return latents

    def write(self, latent: Latent, sink: Sink) -> None:
        mask = latent.symbols["mask"]
        mask_coding.write_mask(mask[None], sink)
        if latent.side["coding"] == RAW:
            image = join(self._placed(latent.symbols["patches"], mask))
            pixels.write_pixels(image[None], self._enlarged(mask)[None], sink)
        else:
            sink.blob("picture", latent.side["picture"])

    def read(self, source: Source) -> Latent:
        [mask] = mask_coding.read_mask((1, *self.grid), source)
        if not mask.any():
            raise CorruptStream("the packet keeps no patch; the stream is damaged, get it again")
        latent = Latent({"mask": mask}, {"coding": source.params["patches"]})
        if latent.side["coding"] == RAW:
            [image] = pixels.read_pixels(self._enlarged(mask)[None], source)
            latent.symbols["patches"] = split(image, self.side)[mask]
        else:
            # No format here spends more than twice the raw size, whatever the pixels.
            latent.side["picture"] = source.blob("picture", 4096 + 6 * self._pixels(mask))
        return latent

    def restore(self, latent: Latent) -> Partial:
        mask = latent.symbols["mask"]
        received = latent.symbols["patches"] if latent.side["coding"] == RAW else self._picture(latent)
        features = {
            "patches": pixels.from_eight_bits(received)[None],
            "index": torch.from_numpy(np.flatnonzero(mask))[None],
            "grid": torch.from_numpy(mask)[None],
        }
        return Partial(features)

    def decoder_state(self) -> Mapping[str, Tensor]:
        """What chooses on the device is not needed to decode."""
        return {}

    def _picture(self, latent: Latent) -> UInt8:
        """The kept patches of a picture, uint8 (K, p, p, 3)."""
        mask = latent.symbols["mask"]
        picture = pictures.decode_picture(latent.side["picture"], self._pixels(mask), (latent.side["coding"],))
        inside = mask[box(mask)]
        height, width = (n * self.side for n in inside.shape)
        if picture.shape[:2] != (height, width):
            raise CorruptStream(f"a picture of {picture.shape[1]}x{picture.shape[0]} where {width}x{height} is due")
        return split(picture, self.side)[inside]

    def _pixels(self, mask: Bool) -> int:
        """Of the picture that holds the kept patches."""
        return mask[box(mask)].size * self.side**2

    def _placed(self, kept: UInt8, mask: Bool) -> UInt8:
        patches = np.zeros((*self.grid, *kept.shape[1:]), np.uint8)
        patches[mask] = kept
        return patches

    def _enlarged(self, mask: Bool) -> Bool:
        return mask.repeat(self.side, 0).repeat(self.side, 1)


def split(image: UInt8, side: int) -> UInt8:
    """(H, W, 3) to patches (h, w, p, p, 3)."""
    height, width, channels = image.shape
    return image.reshape(height // side, side, width // side, side, channels).swapaxes(1, 2)


def join(patches: UInt8) -> UInt8:
    """The inverse of ``split``."""
    down, across, side = patches.shape[:3]
    return np.ascontiguousarray(patches.swapaxes(1, 2)).reshape(down * side, across * side, -1)


def box(mask: Bool) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle that holds every kept patch."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def fill(patches: UInt8, mask: Bool) -> UInt8:
    """Patches (h, w, p, p, 3) with each dropped one of the mean colour of the edges above it and to its left.

    Picture codecs work in raster order and predict a block so, so a dropped patch has next to nothing left to code.
    """
    filled = patches.copy()
    for y, x in zip(*np.nonzero(~mask), strict=True):
        above, left = filled[max(y - 1, 0), x, -1], filled[y, max(x - 1, 0), :, -1]
        near = [edge for edge, there in ((above, y > 0), (left, x > 0)) if there]
        filled[y, x] = np.round(np.mean(near, (0, 1))) if near else 128
    return filled
