"""What toy Encoders are on a device without torch: one that does as they do, and one for each way not to."""

from __future__ import annotations

import numpy as np

from semcodec.device_half import DeviceEncoder
from semcodec.interfaces import Latent
from semcodec.priors import Counted
from semcodec.tensors import eight_bits


class RowsInNumpy(DeviceEncoder):
    """Of ``conformance.encoders:Rows``."""

    def __init__(self, features, parts, **params):
        assert not parts.graphs
        self.height = features["image"].shape[1]
        self.units = {"rows": self.height}

    def scores(self, analysis, target, masks):
        return analysis.features["image"].mean((1, 3))

    def encode(self, features, analysis, masks, params):
        values = np.moveaxis(eight_bits(features["image"]), -1, 1) // params["step"]
        latents = []
        for row, q in enumerate(values):
            rows = masks["rows"][row] if "rows" in masks else np.ones(self.height, bool)
            latents.append(Latent({"rows": rows, "q": q * rows[:, None]}, {"step": params["step"]}))
        return latents

    def write(self, latent, sink):
        sink.symbols("high", latent.symbols["q"].astype(np.int32).ravel(), Counted())


class ScoresTheLast(RowsInNumpy):
    """Scores rows the other way round."""

    def scores(self, analysis, target, masks):
        return super().scores(analysis, target, masks)[:, ::-1]


class SendsMore(RowsInNumpy):
    """Quantises one step higher."""

    def encode(self, features, analysis, masks, params):
        latents = super().encode(features, analysis, masks, params)
        return [Latent({**one.symbols, "q": one.symbols["q"] // 2}, one.side) for one in latents]


class ForgetsTheMask(RowsInNumpy):
    """Sends no mask."""

    def encode(self, features, analysis, masks, params):
        latents = super().encode(features, analysis, masks, params)
        return [Latent({"q": one.symbols["q"]}, one.side) for one in latents]
