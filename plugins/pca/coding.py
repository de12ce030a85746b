"""The components of every tensor as chunks, in layers that a receiver may stop after; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.coding.quantiser import cell_prior
from semcodec.interfaces import Coding, Int32, Latent, Sink, Source
from semcodec.priors import Indexed
from semcodec.specs import FeatureSpec, map_sizes
from semcodec_plugins.pca.spec import ranks


class PCACoding(Coding):
    """A latent holds, by tensor, its first components, int32 (k, H, W) in cells of ``bits`` bits.

    ``bits`` and ``group``, components of each tensor in one layer, are side information.
    """

    state_names = ("_bases.",)

    def __init__(self, features: FeatureSpec, state: Mapping[str, npt.NDArray[Any]], *, rank: int) -> None:
        self._state = state
        self.shapes = map_sizes(features)
        self.ranks = ranks(self.shapes, rank)
        self._counts = {name: f"_bases.{i}.quantiser.counts" for i, name in enumerate(self.shapes)}

    def write(self, latent: Latent, sink: Sink) -> None:
        """Write layer by layer: of each tensor the components of that layer, as one chunk."""
        bits = latent.side["bits"]
        for parts in _layers({name: len(values) for name, values in latent.symbols.items()}, latent.side["group"]):
            for name, start, stop in parts:
                sink.symbols(name, latent.symbols[name][start:stop].ravel(), self._prior(name, start, stop, bits))
            sink.layer()

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``, of as many layers as there are. Raises CorruptStream."""
        bits, group = source.params["bits"], source.params["group"]
        due = {name: min(source.params["components"], rank) for name, rank in self.ranks.items()}
        found: dict[str, list[Int32]] = {name: [] for name in due}
        for parts in _layers(due, group):
            for name, start, stop in parts:
                _, height, width = self.shapes[name]
                count = (stop - start) * height * width
                values = source.symbols(name, count, self._prior(name, start, stop, bits))
                found[name].append(values.reshape(stop - start, height, width))
            if not source.layer():
                break
        symbols = {name: np.concatenate(parts) for name, parts in found.items()}
        return Latent(symbols, {"bits": bits, "group": group})

    def _prior(self, name: str, start: int, stop: int, bits: int) -> Indexed:
        _, height, width = self.shapes[name]
        return cell_prior(self._state[self._counts[name]][start:stop], bits, height * width)


def _layers(counts: Mapping[str, int], group: int) -> Iterator[list[tuple[str, int, int]]]:
    """Layer by layer, (tensor, first component, last but one) of what it holds of ``counts`` components."""
    for start in range(0, max(counts.values()), group):
        yield [(name, start, min(start + group, count)) for name, count in counts.items() if start < count]
