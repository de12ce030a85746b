"""BottleNet++'s cells as chunks: one map under a static table for each channel; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy.typing as npt

from semcodec.coding.quantiser import cell_prior
from semcodec.interfaces import Coding, Latent, Sink, Source
from semcodec.priors import Indexed
from semcodec.specs import FeatureSpec
from semcodec_plugins.bottlenetpp.spec import shapes

COUNTS = "quantiser.counts"


class BottleNetPPCoding(Coding):
    """A latent holds the map, int32 (C', H', W'), in cells of ``bits`` bits, which are side information."""

    state_names = (COUNTS,)

    def __init__(
        self, features: FeatureSpec, state: Mapping[str, npt.NDArray[Any]], *, ratio: int, spatial: int
    ) -> None:
        self._state = state
        found = shapes(features, ratio, spatial)
        self.name, self.shape = found.name, found.sent

    def write(self, latent: Latent, sink: Sink) -> None:
        """Write the map as one chunk of symbols."""
        sink.symbols(self.name, latent.symbols[self.name].ravel(), self._prior(latent.side["bits"]))

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``. Raises CorruptStream."""
        bits = source.params["bits"]
        symbols = source.symbols(self.name, prod(self.shape), self._prior(bits))
        return Latent({self.name: symbols.reshape(self.shape)}, {"bits": bits})

    def _prior(self, bits: int) -> Indexed:
        return cell_prior(self._state[COUNTS], bits, self.shape[1] * self.shape[2])
