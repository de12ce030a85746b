"""STAE on a device without torch: the exported attentions choose, and what is chosen becomes integers as ever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semcodec.device_half import Arrays, DeviceEncoder, DeviceParts
from semcodec.specs import FeatureSpec
from semcodec.types import Analysis, Latent
from semcodec_plugins.stae.coding import STAECoding
from semcodec_plugins.stae.sending import latents_of


class STAEDevice(DeviceEncoder):
    """As ``STAE``."""

    def __init__(self, features: FeatureSpec, parts: DeviceParts, **params: Any) -> None:
        self.coding: STAECoding = STAECoding(features, {}, **params)
        self.units = {"frames": self.coding.total, "pixels": self.coding.height * self.coding.width}
        self._frames, self._pixels = parts.graphs["frames"], parts.graphs["pixels"]

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Any]) -> Any:
        """M_FA (B, T), then M_SA (B, k, H * W) on the kept frames alone, padded as those of ``STAE``."""
        frames: Any = analysis.features["frames"]
        if target == "frames":
            return self._frames(frames)[0]
        if "frames" in masks:
            kept = masks["frames"]
            order = np.argsort(~kept, axis=1, kind="stable")[:, : int(kept.sum(1).max())]
            frames = np.take_along_axis(frames, order[:, :, None, None, None], 1)
        [found] = self._pixels(frames.reshape(-1, *frames.shape[2:]))
        return found.reshape(*frames.shape[:2], -1)

    def encode(
        self, features: Arrays, analysis: Analysis, masks: Mapping[str, Any], params: Mapping[str, Any]
    ) -> list[Latent]:
        """As ``STAE.encode``."""
        return latents_of(features["frames"], masks, params)
