"""The integers of layers as chunks, each tensor under static tables or a scale hyperprior; no torch.

A scale hyperprior runs in integers, so that both ends predict the same tables (``semcodec.coding.integer_conv``).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.coding import gaussian_tables
from semcodec.coding.integer_conv import ACTIVATION_BITS, Network
from semcodec.coding.tables import channel_prior
from semcodec.interfaces import Coding, Int32, Latent, Sink, Source
from semcodec.priors import Indexed
from semcodec.specs import FeatureSpec
from semcodec_plugins.layered import spec

State = Mapping[str, npt.NDArray[Any]]
Shape = tuple[int, ...]

REACH = 127
"""Static tables hold -REACH to REACH; what lies beyond goes through their escape."""
LARGEST = (1 << 31) - 1
DOWN = 4
"""Places of y along each side that one place of z describes."""
CONVOLUTIONS = 2
"""Of each network of a hyperprior."""
ENLARGED = (2, 1)
"""What the network that predicts of tokens enlarges by, behind each of its convolutions."""
SCALE_STEPS = 8
"""Indexes of tables that one unit of what it predicts of scales is."""
SCALE_BITS = ACTIVATION_BITS - SCALE_STEPS.bit_length() + 1
"""Fraction bits of the index of a table, as it is predicted."""


def side_channels(channels: int) -> int:
    """Channels of z, which describes y of so many."""
    return max(2, min(16, channels // 2))


class UnitCoding(ABC):
    """Codes y, the integers of one tensor in one layer, int32 (C, h, w)."""

    @abstractmethod
    def write(self, name: str, y: Int32, sink: Sink) -> None:
        """Write y as chunks, the last of them under its name."""

    @abstractmethod
    def read(self, name: str, shape: Shape, source: Source) -> Int32:
        """The inverse of ``write``. Raises CorruptStream."""

    def put(self, name: str, latent: Latent, sink: Sink) -> None:
        """Write what a latent holds of y under its name."""
        self.write(name, latent.symbols[name], sink)

    def take(self, name: str, shape: Shape, latent: Latent, source: Source) -> None:
        """Add to a latent what ``put`` wrote. Raises CorruptStream."""
        latent.symbols[name] = self.read(name, shape, source)


class FactorizedCoding(UnitCoding):
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


class HyperCoding(UnitCoding):
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


class TokenCoding:
    """Codes what the integers y of tokens, at a level, differ by from what z says of them: their means and scales.

    A mean-and-scale hyperprior (Minnen et al., 2018) in integers. A latent holds "zI.NAME", int32 (side, [t,] h, w),
    "yI.NAME", int32 (C, [T,] H, W), which is y less its means, rounded, and on its side the "level", from 0.
    """

    def __init__(self, state: State, prefix: str, channels: int) -> None:
        self._state, self._prefix, self.channels = state, prefix, channels

    def predict(self, z: Int32, shape: Shape, level: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of y of this shape: its means, in steps of 2 ** -ACTIVATION_BITS, and the index of each one's table."""
        synthesis = Network.from_state(
            self._state, f"{self._prefix}synthesis.", CONVOLUTIONS, up=ENLARGED, out=ACTIVATION_BITS
        )
        found = synthesis.exact(z[None])[0][:, *(slice(side) for side in shape[1:])]
        offsets = self._state[f"{self._prefix}whole_offsets"][level]
        found = found + offsets.reshape(-1, *[1] * (len(shape) - 1))
        means, scales = found[: self.channels], found[self.channels :]
        index = (scales + (1 << SCALE_BITS - 1)) >> SCALE_BITS
        return means, np.clip(index, 0, gaussian_tables.SCALES - 1)

    def prior(self, z: Int32, shape: Shape, level: int) -> Indexed:
        """The Gaussian table of each integer of y of this shape."""
        return Indexed(gaussian_tables.tables(), self.predict(z, shape, level)[1].astype(np.uint8).ravel())

    def side_prior(self, shape: Shape, level: int) -> Indexed:
        """The Gaussian table of each integer of z of this shape."""
        index = self._state[f"{self._prefix}whole_scales"][level].astype(np.uint8)
        return Indexed(gaussian_tables.tables(), np.repeat(index, math.prod(shape[1:])))

    def put(self, name: str, latent: Latent, sink: Sink) -> None:
        """Write z as side information, then y."""
        level, y, z = latent.side["level"], latent.symbols[name], latent.symbols[_side_name(name)]
        sink.symbols(_side_name(name), z.ravel(), self.side_prior(z.shape, level), side=True)
        sink.symbols(name, y.ravel(), self.prior(z, y.shape, level))

    def take(self, name: str, shape: Shape, latent: Latent, source: Source) -> None:
        """The inverse of ``put``. Raises CorruptStream."""
        level, places = latent.side["level"], spec.side_places(shape)
        prior = self.side_prior(places, level)
        z = source.symbols(_side_name(name), math.prod(places), prior).reshape(places)
        latent.symbols[_side_name(name)] = z
        latent.symbols[name] = source.symbols(name, math.prod(shape), self.prior(z, shape, level)).reshape(shape)


CODINGS: dict[str, type[HyperCoding] | type[FactorizedCoding]] = {"hyper": HyperCoding, "factorized": FactorizedCoding}


class CodecCoding(Coding):
    """Layers of integers: a latent holds "yI.NAME", int32 (C, h, w), of layer I from 1 on and each tensor of the cut.

    Of tokens it holds what ``TokenCoding`` says. Base of both codings here. A device needs the integers of every
    network, a server none of the analyses.
    """

    state_names = ("units_of.",)

    def __init__(self, features: FeatureSpec, state: State, **params: Any) -> None:
        self.stack, self.shapes = spec.stack_of(features, params), spec.shapes_of(features)
        self.levels = params["levels"] if spec.holds_tokens(features) else 0
        kind = TokenCoding if self.levels else CODINGS[params["prior"]]
        self.units: list[dict[str, UnitCoding | TokenCoding]] = [
            {name: kind(state, f"units_of.{i}.{t}.prior.", layer.channels) for t, name in enumerate(self.shapes)}
            for i, layer in enumerate(self.stack)
        ]

    def write(self, latent: Latent, sink: Sink) -> None:
        """Write as many layers as the latent holds."""
        for i, units in enumerate(self.units, 1):
            for name, unit in units.items():
                if (key := f"y{i}.{name}") not in latent.symbols:
                    return
                unit.put(key, latent, sink)
            self.end(sink)

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``, of as many layers as there are. Raises CorruptStream."""
        latent = Latent({}, {"level": spec.chosen_level(source.params, self.levels)} if self.levels else {})
        for i, units in enumerate(self.units[: count_layers(source.params, self.stack)], 1):
            for name, unit in units.items():
                shape = spec.places(self.shapes[name], self.stack[i - 1])
                unit.take(f"y{i}.{name}", shape, latent, source)
            if not self.end(source):
                break
        return latent

    def end(self, sink: Sink | Source) -> bool:
        """End a layer; False where none follows."""
        return sink.layer() is not False


class FeatureHyperpriorCoding(CodecCoding):
    """A single layer, whose packet is whole or not at all."""

    def end(self, sink: Sink | Source) -> bool:
        """False: there is one layer, and nothing marks its end."""
        return False


class LayeredCoding(CodecCoding):
    """Several layers: a packet cut at the end of any of them decodes."""


def count_layers(params: Mapping[str, Any], stack: Sequence[spec.Layer]) -> int:
    """Layers that are sent, by the call parameters."""
    count: int = params.get("layers") or len(stack)
    return count


def _shape(y: Int32) -> Shape:
    return y.shape


def _side_name(name: str) -> str:
    """Of z beside y: "z1.tokens" beside "y1.tokens"."""
    return f"z{name[1:]}"
