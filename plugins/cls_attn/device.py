"""cls-attn on a device without torch: one pass of the exported ViT gives its answer and the attention to patches."""

from __future__ import annotations

from typing import Any

from semcodec.coding.patch_encoder import Patches
from semcodec.device_half import Arrays, DeviceParts
from semcodec.specs import FeatureSpec
from semcodec.types import Analysis


class ClsAttnDevice(Patches):
    """As ``ClsAttn``."""

    def __init__(self, features: FeatureSpec, parts: DeviceParts, **params: Any) -> None:
        super().__init__(features, side=int(parts.arrays["side"]))
        self._attend = parts.graphs["attend"]

    def analyse(self, features: Arrays) -> Analysis:
        """Scores (B, N) of patches, and the device's logits."""
        logits, attention = self._attend(features["image"])
        return Analysis(features, {"keep": attention}, logits)
