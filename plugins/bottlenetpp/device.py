"""BottleNet++ on a device without torch: the first half of the bottleneck in float64, as with torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.coding.integer_conv import unfold
from semcodec.coding.quantiser import cells_of, check_finite
from semcodec.device_half import Arrays, DeviceEncoder, DeviceParts
from semcodec.specs import FeatureSpec
from semcodec.types import Analysis, Latent
from semcodec_plugins.bottlenetpp.coding import BottleNetPPCoding
from semcodec_plugins.bottlenetpp.spec import window

EPS = 1e-5
"""Of torch's batch norm."""


class BottleNetPPDevice(DeviceEncoder):
    """As ``BottleNetPP``. The convolution and its batch norm are one matrix."""

    def __init__(self, features: FeatureSpec, parts: DeviceParts, *, ratio: int, spatial: int) -> None:
        self.coding: BottleNetPPCoding = BottleNetPPCoding(features, parts.arrays, ratio=ratio, spatial=spatial)
        found = {name: array.astype(np.float64) for name, array in parts.arrays.items()}
        mean, variance, scale, bias = (
            found[f"reduce_norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        factor = scale / np.sqrt(variance + EPS)
        kernels = found["reduce.weight"]
        self.matrix = kernels.reshape(len(kernels), -1) * factor[:, None]
        self.added = (bias - mean * factor)[:, None]
        self.kernel, self.stride, self.padding = window(spatial)
        self.low, self.high = (parts.arrays[f"quantiser.{name}"] for name in ("low", "high"))

    def encode(
        self, features: Arrays, analysis: Analysis, masks: Mapping[str, Any], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Cells of the maps in [0, 1], int32 (C', H', W')."""
        name, bits = self.coding.name, params["bits"]
        x = check_finite(features[name])  # of infinity a sigmoid makes an ordinary value
        symbols = cells_of(self.compressed(x), self.low, self.high, bits)
        return [Latent({name: one}, {"bits": bits}) for one in symbols]

    def compressed(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """(B, C, H, W) to (B, C', H', W') in [0, 1]."""
        windows = unfold(x.astype(np.float64), self.kernel, self.stride, self.padding)
        batch, rows, *places = windows.shape
        z = self.matrix @ windows.reshape(batch, rows, -1) + self.added
        with np.errstate(over="ignore"):  # of what is far below zero, whose share is zero
            found: npt.NDArray[np.float64] = 1 / (1 + np.exp(-z))
        return found.reshape(batch, -1, *places)
