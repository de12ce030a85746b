"""The integers of layers as chunks, each tensor under static tables or a scale hyperprior; no torch.

A scale hyperprior runs in integers, so that both ends predict the same tables (``semcodec.coding.integer_conv``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from semcodec.coding import gaussian_tables
from semcodec.coding.integer_conv import Network
from semcodec.coding.tables import channel_prior
from semcodec.interfaces import Coding, Int32, Latent, Sink, Source
from semcodec.priors import Indexed
from semcodec.specs import FeatureSpec, map_sizes
from semcodec_plugins.layered import spec

State = Mapping[str, npt.NDArray[Any]]
Shape = tuple[int, int, int]

REACH = 127
"""Static tables hold -REACH to REACH; what lies beyond goes through their escape."""
LARGEST = (1 << 31) - 1
DOWN = 4
"""Places of y along each side that one place of z describes."""
CONVOLUTIONS = 2
"""Of each network of a scale hyperprior."""


def side_channels(channels: int) -> int:
    """Channels of z, which describes y of so many."""
    return max(2, min(16, channels // 2))


class UnitCoding(Protocol):
    """Codes y, the integers of one tensor in one layer, int32 (C, h, w)."""

    def write(self, name: str, y: Int32, sink: Sink) -> None:
        """Write y as chunks, the last of them under its name."""

    def read(self, name: str, shape: Shape, source: Source) -> Int32:
        """The inverse of ``write``. Raises CorruptStream."""


class FactorizedCoding:
    """Under one static table for each channel. prefix: what the names of its integers in ``state`` begin with."""

    def __init__(self, state: State, prefix: str, channels: int) -> None:
        self._state, self._counts = state, f"{prefix}counts"

    def prior(self, shape: Shape) -> Indexed:
        """The table of each of so many integers."""
        _, height, width = shape
        return channel_prior(self._state[self._counts], height * width, -REACH, escape=True)

    def write(self, name: str, y: Int32, sink: Sink) -> None:
        """Write y as one chunk."""
        sink.symbols(name, y.ravel(), self.prior(_shape(y)))

    def read(self, name: str, shape: Shape, source: Source) -> Int32:
        """The inverse of ``write``. Raises CorruptStream."""
        return source.symbols(name, math.prod(shape), self.prior(shape)).reshape(shape)


class HyperCoding:
    """Under a scale hyperprior (Balle et al., 2018): z, which describes the scales of y, goes first, as "z.NAME"."""

    def __init__(self, state: State, prefix: str, channels: int) -> None:
        self._state, self._prefix, self.side = state, prefix, side_channels(channels)
        self.z = FactorizedCoding(state, f"{prefix}z.", self.side)

    def prior(self, z: Int32, shape: Shape) -> Indexed:
        """The Gaussian table of each integer of y of this shape, as predicted from z (side, h, w)."""
        synthesis = Network.from_state(self._state, f"{self._prefix}synthesis.", CONVOLUTIONS, up=2)
        index = synthesis.exact(z[None])[0, :, : shape[1], : shape[2]]
        return Indexed(gaussian_tables.tables(), np.clip(index, 0, gaussian_tables.SCALES - 1).astype(np.uint8).ravel())

    def write(self, name: str, y: Int32, sink: Sink) -> None:
        """Write z as side information, then y."""
        analysis = Network.from_state(self._state, f"{self._prefix}analysis.", CONVOLUTIONS, stride=2)
        found = analysis.exact(np.abs(y.astype(np.int64))[None])[0]
        z = np.clip(found, -LARGEST, LARGEST).astype(np.int32)
        sink.symbols(f"z.{name}", z.ravel(), self.z.prior(_shape(z)), side=True)
        sink.symbols(name, y.ravel(), self.prior(z, _shape(y)))

    def read(self, name: str, shape: Shape, source: Source) -> Int32:
        """The inverse of ``write``. Raises CorruptStream."""
        _, height, width = shape
        places = (self.side, -(-height // DOWN), -(-width // DOWN))
        z = source.symbols(f"z.{name}", math.prod(places), self.z.prior(places)).reshape(places)
        return source.symbols(name, math.prod(shape), self.prior(z, shape)).reshape(shape)


CODINGS: dict[str, type[HyperCoding] | type[FactorizedCoding]] = {"hyper": HyperCoding, "factorized": FactorizedCoding}


class CodecCoding(Coding):
    """Layers of integers: a latent holds "yI.NAME", int32 (C, h, w), of layer I from 1 on and each tensor of the cut.

    Base of both codings here. A device needs the integers of every network, a server none of the analyses.
    """

    state_names = ("units_of.",)

    def __init__(self, features: FeatureSpec, state: State, stack: Sequence[spec.Layer], prior: str) -> None:
        self.stack, self.shapes = tuple(stack), map_sizes(features)
        self.units: list[dict[str, UnitCoding]] = [
            {
                name: CODINGS[prior](state, f"units_of.{i}.{t}.prior.", layer.channels)
                for t, name in enumerate(self.shapes)
            }
            for i, layer in enumerate(self.stack)
        ]

    def write(self, latent: Latent, sink: Sink) -> None:
        """Write as many layers as the latent holds."""
        for i, units in enumerate(self.units, 1):
            for name, unit in units.items():
                if (key := f"y{i}.{name}") not in latent.symbols:
                    return
                unit.write(key, latent.symbols[key], sink)
            self.end(sink)

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``, of as many layers as there are. Raises CorruptStream."""
        latent = Latent({})
        for i, units in enumerate(self.units[: count_layers(source.params, self.stack)], 1):
            for name, unit in units.items():
                shape = spec.places(self.shapes[name], self.stack[i - 1])
                latent.symbols[f"y{i}.{name}"] = unit.read(f"y{i}.{name}", shape, source)
            if not self.end(source):
                break
        return latent

    def end(self, sink: Sink | Source) -> bool:
        """End a layer; False where none follows."""
        return sink.layer() is not False


class FeatureHyperpriorCoding(CodecCoding):
    """A single layer, whose packet is whole or not at all."""

    def __init__(self, features: FeatureSpec, state: State, **params: Any) -> None:
        super().__init__(features, state, [spec.Layer(params["channels"], params["stride"])], params["prior"])

    def end(self, sink: Sink | Source) -> bool:
        """False: there is one layer, and nothing marks its end."""
        return False


class LayeredCoding(CodecCoding):
    """Several layers: a packet cut at the end of any of them decodes."""

    def __init__(self, features: FeatureSpec, state: State, **params: Any) -> None:
        super().__init__(features, state, spec.layers(params["channels"]), params["prior"])


def count_layers(params: Mapping[str, Any], stack: Sequence[spec.Layer]) -> int:
    """Layers that are sent, by the call parameters."""
    count: int = params.get("layers") or len(stack)
    return count


def _shape(y: Int32) -> Shape:
    channels, height, width = y.shape
    return channels, height, width
