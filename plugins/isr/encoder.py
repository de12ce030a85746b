"""The ISR encoder: one small picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from semcodec.coding.pictures import decode_picture, encode_picture
from semcodec.device_half import Exported
from semcodec.errors import CorruptStream
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial
from semcodec.specs import FeatureSpec, image_size
from semcodec.tensors import as_array, eight_bits, from_eight_bits
from semcodec_plugins.isr.coding import ISRCoding

BICUBIC: dict[str, Any] = {"mode": "bicubic", "antialias": True}


def shrink(image: Tensor, scale: int) -> Tensor:
    """(B, 3, H, W) in [0, 1] to (B, 3, H / scale, W / scale): bicubic, antialiased, within [0, 1]."""
    # By a size rather than a factor, so that no rounding of one can change the other.
    size = image.shape[-2] // scale, image.shape[-1] // scale
    return interpolate(image, size=size, **BICUBIC).clamp(0, 1)


class ISR(Encoder):
    """Sends the image at a lower resolution, as a picture.

    features: {"image": float32 (3, H, W) in [0, 1]}. scale: pixels that become one, along each side.
    """

    def __init__(self, features: FeatureSpec, *, scale: int) -> None:
        height, width = image_size(features)
        self.coding = ISRCoding(features, {}, scale=scale)
        self.scale = scale
        self.source, self.size = (height, width), (height // scale, width // scale)

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        eight_bits(features["image"])  # refuses NaN and infinity, which the clamp below would hide
        # One at a time: a sum in another order for another batch size may round to another byte.
        images = [eight_bits(shrink(image[None], self.scale))[0] for image in features["image"]]
        coding, quality, slow = params["coding"], params["quality"], params["slow"]
        small = [encode_picture(image, coding, quality, slow=slow) for image in images]
        return [Latent({}, {"picture": one, "coding": coding}) for one in small]

    def export(self) -> Exported:
        """The weights of the interpolation, of rows and of columns: what it makes of one bright pixel each."""
        height, width = self.size
        down, across = (
            interpolate(torch.eye(before)[None, None], size=(after, before), **BICUBIC)[0, 0]
            for before, after in zip(self.source, (height, width), strict=True)
        )
        return Exported({"down": as_array(down), "across": as_array(across)})

    def restore(self, latent: Latent) -> Partial:
        """{"image": (1, 3, H / scale, W / scale)}."""
        height, width = self.size
        rgb = decode_picture(latent.side["picture"], height * width, (latent.side["coding"],))
        if rgb.shape[:2] != self.size:
            raise CorruptStream(f"a picture of {rgb.shape[1]}x{rgb.shape[0]} where {width}x{height} is due")
        return Partial({"image": torch.as_tensor(from_eight_bits(rgb))[None]})
