"""The Coding of DeepISC: kept frames, the latent's symbols, the classes and the residual; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.coding.tables import channel_prior, channel_tables
from semcodec.errors import CorruptStream
from semcodec.interfaces import Coding
from semcodec.priors import Bits, Indexed
from semcodec.specs import FeatureSpec
from semcodec.types import Latent, Sink, Source
from semcodec_plugins.deepisc import residual, segments
from semcodec_plugins.deepisc.spec import LATENT, LATENT_BITS, shapes

Bool = npt.NDArray[np.bool_]


class DeepISCCoding(Coding):
    """A Latent has the symbols "latent", int32 (LATENT, k, h, w) of the k kept frames, "segments", uint8 (k, h', w'),
    "residual", int16 (n, 3), and of clips "kept", bool (T,), true for one frame or more. Beside them are the call
    parameters "frames", "pixels", "step" and "entropy".

    state: how often each symbol of the latent and each class was counted in training, integers.
    """

    state_names = ("quantiser.counts", "tables.counts")

    def __init__(self, features: FeatureSpec, state: Mapping[str, Any], **params: Any) -> None:
        self.shapes = shapes(features)
        counts = np.asarray(state["quantiser.counts"], np.int64)
        self.latent_counts = counts.reshape(LATENT, 1 << LATENT_BITS, -1).sum(2)
        self.segment_tables = channel_tables(state["tables.counts"])

    def write(self, latent: Latent, sink: Sink) -> None:
        sent, side = latent.symbols, latent.side
        if "kept" in sent:
            sink.symbols("kept", sent["kept"].astype(np.int32), Bits(1), side=True)
        sink.symbols("latent", sent["latent"], self._prior(sent["latent"][0].size))
        if side["entropy"] == "all":
            segments.write_coded(sent["segments"], self.segment_tables, sink)
            residual.write_coded(sent["residual"], self.mask(self.kept(latent), side["pixels"]), sink)
        else:
            segments.write_packed(sent["segments"], sink)
            residual.write_packed(sent["residual"], side["step"], sink)

    def read(self, source: Source) -> Latent:
        found, params = self.shapes, source.params
        latent = Latent({}, {name: params[name] for name in ("frames", "pixels", "step", "entropy")})
        if found.name == "frames":
            latent.symbols["kept"] = source.symbols("kept", found.total, Bits(1)).astype(bool)
        kept = self.kept(latent)
        count = int(kept.sum())
        if not count:
            raise CorruptStream("the packet keeps no frame")
        shape = (LATENT, count, *found.latent)
        prior = self._prior(count * found.latent[0] * found.latent[1])
        latent.symbols["latent"] = source.symbols("latent", int(np.prod(shape)), prior).reshape(shape)
        mask, step, grid = self.mask(kept, params["pixels"]), params["step"], (count, *found.segments)
        if params["entropy"] == "all":
            latent.symbols["segments"] = segments.read_coded(grid, self.segment_tables, source)
            latent.symbols["residual"] = residual.read_coded(mask, step, source)
        else:
            latent.symbols["segments"] = segments.read_packed(grid, source)
            latent.symbols["residual"] = residual.read_packed(mask, step, source)
        return latent

    def kept(self, latent: Latent) -> Bool:
        """Which frames are kept, (T,); of a still the only one."""
        kept: Bool = latent.symbols.get("kept", np.ones(1, np.bool_))
        return kept

    def mask(self, kept: Bool, share: float) -> Bool:
        """Where the residual of the kept frames is sent, (k, H, W). share: of each frame's pixels."""
        found = self.shapes
        return residual.positions(np.flatnonzero(kept), found.height, found.width, found.residuals(share))

    def _prior(self, places: int) -> Indexed:
        return channel_prior(self.latent_counts, places)
