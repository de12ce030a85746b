"""PCA on a device without torch: the leading components of every tensor at the cut, in float64 as with torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semcodec.coding.quantiser import cells_of
from semcodec.device_half import Arrays, DeviceEncoder, DeviceParts
from semcodec.specs import FeatureSpec
from semcodec.types import Analysis, Latent
from semcodec_plugins.pca.coding import PCACoding


class PCADevice(DeviceEncoder):
    """As ``PCA``; what ``pca-adapt`` adds is on the server."""

    def __init__(self, features: FeatureSpec, parts: DeviceParts, *, rank: int) -> None:
        self.coding: PCACoding = PCACoding(features, parts.arrays, rank=rank)
        self.arrays = parts.arrays

    def encode(
        self, features: Arrays, analysis: Analysis, masks: Mapping[str, Any], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Cells of the leading components of each tensor, int32 (k, H, W)."""
        count, bits = params["components"], params["bits"]
        symbols = {name: self._cells(i, features[name], count, bits) for i, name in enumerate(self.coding.shapes)}
        side = {"bits": bits, "group": params["group"]}
        batch = len(next(iter(symbols.values())))
        return [Latent({name: values[row] for name, values in symbols.items()}, dict(side)) for row in range(batch)]

    def _cells(self, number: int, x: Any, count: int, bits: int) -> Any:
        mean, vectors, low, high = (
            self.arrays[f"_bases.{number}.{name}"] for name in ("mean", "vectors", "quantiser.low", "quantiser.high")
        )
        batch, channels, *places = x.shape
        centred = x.reshape(batch, channels, -1).astype(np.float64) - mean.astype(np.float64)[:, None]
        found = vectors[:count].astype(np.float64) @ centred
        return cells_of(found.reshape(batch, -1, *places), low, high, bits)
