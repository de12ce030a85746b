"""Some of an image's patches as bytes: without loss, or as a picture by a real image codec.

The Encoder of every method that sends patches; which ones, Selectors and the method's own scores say. Importing this
imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.coding.patch_coding import PatchesCoding, decode_patches, encode_patches
from semcodec.coding.patches import Bool, Rgb, patch_grid, split
from semcodec.interfaces import Encoder
from semcodec.specs import FeatureSpec
from semcodec.tensors import as_array, beside, eight_bits, from_eight_bits
from semcodec.types import Analysis, Features, Latent, Partial

if TYPE_CHECKING:
    from torch import Tensor


def restore_patches(image: Rgb, mask: Bool, side: int) -> Partial:
    """Those patches of an image (H, W, 3) that ``mask`` (h, w) keeps, as an Encoder of patches restores them.

    {"patches": float32 (1, K, 3, p, p) in [0, 1], "index": int64 (1, K) in raster order, "grid": bool (1, h, w)}.
    """
    import torch

    features = {
        "patches": from_eight_bits(split(image, side)[mask])[None],
        "index": torch.from_numpy(np.flatnonzero(mask))[None],
        "grid": torch.from_numpy(mask)[None],
    }
    return Partial(features)


class Patches(Encoder):
    """Kept patches of an image, at 8 bits. Without a model on the device all patches score alike.

    features: {"image": float32 (3, H, W) in [0, 1]}. side: of a patch, in pixels, which divides H and W;
    0 is the usual.

    What is restored: {"patches": (1, K, 3, p, p) in [0, 1], "index": (1, K) int64 in raster order, "grid": (1, h, w)
    bool, where they lie in the image of h x w patches}.
    """

    def __init__(self, features: FeatureSpec, *, side: int, **params: Any) -> None:
        self.side, self.grid = patch_grid(features, side)
        self.coding = PatchesCoding(features, {}, side=self.side)
        self.units = {"keep": self.grid[0] * self.grid[1]}

    def analyse(self, features: Features) -> Analysis:
        image = features["image"]
        return Analysis(features, {"keep": beside(np.ones((len(image), self.units["keep"]), np.float32), image)})

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        latents = []
        for row, image in enumerate(eight_bits(features["image"])):
            mask = as_array(masks["keep"][row]).reshape(self.grid) if "keep" in masks else np.ones(self.grid, bool)
            # A picture is what is lossy here, so it belongs to encode, not to write.
            sent = encode_patches(image, mask, self.side, params["patches"], params["quality"])
            latents.append(Latent({"mask": mask}, {"sent": sent, "coding": params["patches"]}))
        return latents

    def restore(self, latent: Latent) -> Partial:
        mask = latent.symbols["mask"]
        image = decode_patches(latent.side["sent"], mask, self.side, latent.side["coding"])
        return restore_patches(image, mask, self.side)

    def server_state(self) -> Sequence[str]:
        """Nothing: what chooses on the device is not needed to decode."""
        return ()

    def decoder_state(self) -> Mapping[str, Tensor]:
        """Nothing, as ``server_state`` says."""
        return {}
