"""AECNN's cells as chunks: one map of the kept channels, under a static table for each; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.coding.quantiser import cell_prior
from semcodec.errors import CorruptStream
from semcodec.interfaces import Coding, Latent, Sink, Source
from semcodec.priors import Indexed
from semcodec.specs import FeatureSpec
from semcodec_plugins.aecnn.spec import feature_map

COUNTS = "quantiser.counts"


class AECNNCoding(Coding):
    """A latent holds the map, uint8 (C / ratio, H, W), in cells of ``bits`` bits, which are side information."""

    state_names = (COUNTS,)

    def __init__(self, features: FeatureSpec, state: Mapping[str, npt.NDArray[Any]], *, ratio: int) -> None:
        self._state = state
        self.name, channels, height, width = feature_map(features, ratio)
        self.shape = channels // ratio, height, width

    def write(self, latent: Latent, sink: Sink) -> None:
        """Write the map as one chunk of symbols."""
        sink.symbols(self.name, latent.symbols[self.name].ravel().astype(np.int32), self._prior(latent.side["bits"]))

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``. Raises CorruptStream, also for a value of more bits."""
        bits = source.params["bits"]
        values = source.symbols(self.name, int(np.prod(self.shape)), self._prior(bits))
        if values.min() < 0 or values.max() >= 1 << bits:
            raise CorruptStream(f"{self.name}: a value does not fit {bits} bits; the stream is damaged, get it again")
        return Latent({self.name: values.reshape(self.shape).astype(np.uint8)}, {"bits": bits})

    def _prior(self, bits: int) -> Indexed:
        return cell_prior(self._state[COUNTS], bits, self.shape[1] * self.shape[2])
