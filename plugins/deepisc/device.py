"""DeepISC on a device without torch: its networks are exported, and a frame is padded and quantised in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semcodec.coding.quantiser import cells_of, merged_centroids
from semcodec.device_half import Arrays, DeviceEncoder, DeviceParts
from semcodec.specs import FeatureSpec
from semcodec.tensors import eight_bits, floats_of
from semcodec.types import Analysis, Latent
from semcodec_plugins.deepisc.coding import DeepISCCoding
from semcodec_plugins.deepisc.sending import UInt8, latents_of
from semcodec_plugins.deepisc.spec import CLASSES, LATENT_BITS, LATENT_STRIDE


class DeepISCDevice(DeviceEncoder):
    """As ``DeepISC``. The residual is taken against what the exported synthesiser makes, frame by frame."""

    def __init__(self, features: FeatureSpec, parts: DeviceParts, **params: Any) -> None:
        arrays = parts.arrays
        self.coding: DeepISCCoding = DeepISCCoding(features, arrays)
        self.shapes, self.graphs = self.coding.shapes, parts.graphs
        self.units = {"frames": self.shapes.total}
        self.low, self.high = arrays["quantiser.low"], arrays["quantiser.high"]
        self.centroids = merged_centroids(arrays["quantiser.counts"], arrays["quantiser.centroids"], LATENT_BITS)

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Any]) -> Any:
        """M_FA (B, T). A still has one frame, which is kept."""
        x: Any = analysis.features[self.shapes.name]
        return self.graphs["frames"](x)[0] if "frames" in self.graphs else np.ones((len(x), 1), np.float32)

    def encode(
        self, features: Arrays, analysis: Analysis, masks: Mapping[str, Any], params: Mapping[str, Any]
    ) -> list[Latent]:
        """As ``DeepISC.encode``."""
        return latents_of(self, eight_bits(features[self.shapes.name]), masks, params)

    def describe(self, frames: UInt8) -> tuple[Any, UInt8]:
        """Frames (k, H, W, 3) to the latent's symbols (LATENT, k, h, w) and classes (k, h', w')."""
        x = floats_of(frames)
        height, width = x.shape[-2:]
        x = np.pad(x, ((0, 0), (0, 0), (0, -height % LATENT_STRIDE), (0, -width % LATENT_STRIDE)), "edge")
        [values], [logits] = self.graphs["latent"](x), self.graphs["segments"](x)
        symbols = cells_of(values, self.low, self.high, LATENT_BITS).swapaxes(0, 1)
        return np.ascontiguousarray(symbols), logits.argmax(1).astype(np.uint8)

    def synthesise(self, symbols: Any, classes: UInt8) -> UInt8:
        """Frames (k, H, W, 3) of what ``describe`` gives."""
        values = np.stack([row[cells] for row, cells in zip(self.centroids, symbols, strict=True)], 1)
        shown = (classes[:, None] == np.arange(CLASSES)[:, None, None]).astype(np.float32)
        [frames] = self.graphs["synthesise"](values, shown)
        return eight_bits(frames[..., : self.shapes.height, : self.shapes.width])
