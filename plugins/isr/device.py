"""ISR on a device without torch: the image is made smaller by the very weights that torch would sum pixels with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semcodec.coding.pictures import encode_picture
from semcodec.device_half import Arrays, DeviceEncoder, DeviceParts
from semcodec.specs import FeatureSpec
from semcodec.tensors import eight_bits
from semcodec.types import Analysis, Latent
from semcodec_plugins.isr.coding import ISRCoding


class ISRDevice(DeviceEncoder):
    """As ``ISR``. down, across: float32 matrices (h, H) and (w, W) of its bicubic interpolation."""

    def __init__(self, features: FeatureSpec, parts: DeviceParts, *, scale: int) -> None:
        self.coding: ISRCoding = ISRCoding(features, {}, scale=scale)
        self.down, self.across = parts.arrays["down"], parts.arrays["across"].T

    def encode(
        self, features: Arrays, analysis: Analysis, masks: Mapping[str, Any], params: Mapping[str, Any]
    ) -> list[Latent]:
        """One picture a sample. Raises UsageError for pixels that are not finite."""
        eight_bits(features["image"])  # refuses NaN and infinity, which the clip below would hide
        coding, quality = params["coding"], params["quality"]
        small = [np.clip(self.down @ (image @ self.across), 0, 1) for image in features["image"]]
        side = [{"picture": encode_picture(eight_bits(one), coding, quality), "coding": coding} for one in small]
        return [Latent({}, one) for one in side]
