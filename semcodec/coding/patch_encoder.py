"""Some of an image's patches as bytes: without loss, or as a picture by a real image codec.

The Encoder of every method that sends patches; which ones, Selectors and the method's own scores say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semcodec.coding import masks as mask_coding
from semcodec.coding.patch_coding import decode_patches, encode_patches, read_patches, write_patches
from semcodec.coding.patches import split, usual_side
from semcodec.errors import CorruptStream
from semcodec.interfaces import Encoder
from semcodec.specs import FeatureSpec, image_size
from semcodec.tensors import eight_bits, from_eight_bits
from semcodec.types import Analysis, Features, Latent, Partial, Sink, Source


class Patches(Encoder):
    """Kept patches of an image, at 8 bits. Without a model on the device all patches score alike.

    features: {"image": float32 (3, H, W) in [0, 1]}. side: of a patch, in pixels, which divides H and W;
    0 is the usual.

    What is restored: {"patches": (1, K, 3, p, p) in [0, 1], "index": (1, K) int64 in raster order, "grid": (1, h, w)
    bool, where they lie in the image of h x w patches}.
    """

    def __init__(self, features: FeatureSpec, *, side: int, **params: Any) -> None:
        height, width = image_size(features)
        self.side = side or usual_side(height, width)
        self.grid = height // self.side, width // self.side
        self.units = {"keep": self.grid[0] * self.grid[1]}

    def analyse(self, features: Features) -> Analysis:
        return Analysis(features, {"keep": torch.ones(len(features["image"]), self.units["keep"])})

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        latents = []
        for row, image in enumerate(eight_bits(features["image"])):
            mask = masks["keep"][row].cpu().numpy().reshape(self.grid) if "keep" in masks else np.ones(self.grid, bool)
            # A picture is what is lossy here, so it belongs to encode, not to write.
            sent = encode_patches(image, mask, self.side, params["patches"], params["quality"])
            latents.append(Latent({"mask": mask}, {"sent": sent, "coding": params["patches"]}))
        return latents

    def write(self, latent: Latent, sink: Sink) -> None:
        mask = latent.symbols["mask"]
        mask_coding.write_mask(mask[None], sink)
        write_patches(latent.side["sent"], mask, self.side, sink)

    def read(self, source: Source) -> Latent:
        [mask] = mask_coding.read_mask((1, *self.grid), source)
        if not mask.any():
            raise CorruptStream("the packet keeps no patch; the stream is damaged, get it again")
        coding = source.params["patches"]
        return Latent({"mask": mask}, {"sent": read_patches(mask, self.side, coding, source), "coding": coding})

    def restore(self, latent: Latent) -> Partial:
        mask = latent.symbols["mask"]
        image = decode_patches(latent.side["sent"], mask, self.side, latent.side["coding"])
        features = {
            "patches": from_eight_bits(split(image, self.side)[mask])[None],
            "index": torch.from_numpy(np.flatnonzero(mask))[None],
            "grid": torch.from_numpy(mask)[None],
        }
        return Partial(features)

    def decoder_state(self) -> Mapping[str, Tensor]:
        """What chooses on the device is not needed to decode."""
        return {}
