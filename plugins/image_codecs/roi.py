"""An image as one ordinary JPEG in which blocks that are not salient have a lower quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from semcodec.coding.pictures import Rgb, decode_picture, encode_picture
from semcodec.interfaces import Analysis, Features, Latent
from semcodec.specs import FeatureSpec
from semcodec.tensors import as_array, beside, eight_bits
from semcodec_plugins.image_codecs.pictures_encoder import Jpeg
from semcodec_plugins.image_codecs.spec import BLOCK

if TYPE_CHECKING:
    from torch import Tensor

Map = npt.NDArray[np.float64]

SIDE = 64
"""Pixels a side at which the spectral residual is taken, as in the paper."""
_LUMA = np.array([0.299, 0.587, 0.114])


class RoiJpeg(Jpeg):
    """``saliency`` scores the blocks of 16 x 16 pixels, without a model; a Selector keeps some of them.

    The others are coded as JPEG at the quality ``low`` and decoded, on the device; the picture made of both is sent at
    ``quality``. Their coefficients, already coarse on the same grid of blocks, cost next to nothing the second time.
    """

    def __init__(self, features: FeatureSpec, *, saliency: str) -> None:
        super().__init__(features)
        height, width = (int(side or 0) for side in self.shape[-2:])
        self.grid = -(-height // BLOCK), -(-width // BLOCK)
        self.units = {"keep": self.grid[0] * self.grid[1]}
        self.saliency = SALIENCY[saliency]

    def analyse(self, features: Features) -> Analysis:
        """Scores of the blocks, (B, N) float32, in raster order."""
        scores = [self.saliency(image, self.grid).ravel() for image in eight_bits(features["image"])]
        return Analysis(features, {"keep": beside(np.stack(scores).astype(np.float32), features["image"])})

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Each image as one picture; blocks that the mask "keep" leaves out are coarse."""
        latents = []
        for row, image in enumerate(eight_bits(features["image"])):
            if "keep" in masks:
                keep = as_array(masks["keep"][row]).reshape(self.grid)
                image = composed(image, keep, min(params["low"], params["quality"]))
            latents.append(Latent({}, {"picture": encode_picture(image, "jpeg", params["quality"])}))
        return latents


def composed(image: Rgb, keep: npt.NDArray[np.bool_], low: int) -> Rgb:
    """The image (H, W, 3) with every block that is not kept replaced by what JPEG at quality ``low`` makes of it."""
    coarse = decode_picture(encode_picture(image, "jpeg", low), image[..., 0].size, ("jpeg",))
    mask = np.kron(keep, np.ones((BLOCK, BLOCK), bool))[: image.shape[0], : image.shape[1]]
    return np.where(mask[..., None], image, coarse)


def spectral_residual(image: Rgb, grid: tuple[int, int]) -> Map:
    """Mean saliency of each block: what is left of the log spectrum less its local mean (Hou and Zhang, CVPR 2007)."""
    small = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    spectrum = np.fft.fft2(np.asarray(small, np.float64))
    log = np.log(np.abs(spectrum) + 1e-6)
    residual = log - _box(log, 1)
    saliency: Map = np.square(np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))))
    for _ in range(3):  # three boxes in the place of the paper's Gaussian
        saliency = _box(saliency, 2)
    height, width, _ = image.shape
    return _means(np.asarray(Image.fromarray(saliency.astype(np.float32)).resize((width, height))), grid)


def gradient_energy(image: Rgb, grid: tuple[int, int]) -> Map:
    """Mean squared gradient of the luma in each block."""
    luma = image @ _LUMA
    across, down = (np.diff(luma, axis=axis, prepend=luma.take([0], axis)) for axis in (1, 0))
    return _means(across**2 + down**2, grid)


SALIENCY = {"spectral": spectral_residual, "gradient": gradient_energy}


def _box(values: Map, reach: int) -> Map:
    """Means over squares of ``2 reach + 1``; the map goes on periodically, as its spectrum does."""
    for axis in (0, 1):
        values = np.mean([np.roll(values, shift, axis) for shift in range(-reach, reach + 1)], axis=0)
    return values


def _means(values: npt.NDArray[Any], grid: tuple[int, int]) -> Map:
    """Means over blocks, of which the last in a row or column may be smaller."""
    sums, counts = values.astype(np.float64), np.ones(values.shape)
    for axis, count in enumerate(grid):
        starts = np.arange(count) * BLOCK
        sums, counts = np.add.reduceat(sums, starts, axis), np.add.reduceat(counts, starts, axis)
    return sums / counts
