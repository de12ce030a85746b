"""AECNN on a device without torch: the head computes the kept channels alone, and here they become cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semcodec.coding.quantiser import cells_of
from semcodec.device_half import Arrays, DeviceEncoder, DeviceParts
from semcodec.specs import FeatureSpec
from semcodec.types import Analysis, Latent
from semcodec_plugins.aecnn.coding import AECNNCoding


class AECNNDevice(DeviceEncoder):
    """As ``AECNN``."""

    def __init__(self, features: FeatureSpec, parts: DeviceParts, *, ratio: int) -> None:
        self.coding: AECNNCoding = AECNNCoding(features, parts.arrays, ratio=ratio)
        self.low, self.high = (parts.arrays[f"quantiser.{name}"] for name in ("low", "high"))

    def encode(
        self, features: Arrays, analysis: Analysis, masks: Mapping[str, Any], params: Mapping[str, Any]
    ) -> list[Latent]:
        """``features`` holds the kept channels alone."""
        name, bits = self.coding.name, params["bits"]
        symbols = cells_of(features[name], self.low, self.high, bits).astype(np.uint8)
        return [Latent({name: one}, {"bits": bits}) for one in symbols]
