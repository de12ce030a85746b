"""The integers of CompressAI's models as chunks; no torch.

Writing needs no network: the device has found the integers and the indexes of their tables. Reading does: all models
but the factorized ones predict the tables of y from what was read before, by networks of CompressAI's in torch. So
``read`` here is of factorized models alone, and the Encoder reads the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from functools import cache
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from semcodec.coding import gaussian_tables
from semcodec.coding.coder_errors import only_corrupt
from semcodec.coding.tables import channel_prior, channel_tables
from semcodec.errors import CorruptStream, PluginError
from semcodec.interfaces import Coding, Int32, Latent, Sink, Source
from semcodec.priors import Indexed, Table
from semcodec.specs import FeatureSpec, image_size
from semcodec_plugins.learned import spec

Bytes = npt.NDArray[np.uint8]

REACH = 127
"""Static tables hold -REACH to REACH around the median; what lies beyond goes through their escape."""
RASTER_REACH = 1 << 15
"""Symbols beyond are clamped where place after place is coded, which the places after them take into account."""
CHECK = 4
_MODEL = constriction.stream.model.QuantizedGaussian(-RASTER_REACH, RASTER_REACH)


class LearnedCoding(Coding):
    """A latent holds y and what describes it, by name in order; ``index`` of its side information has their tables.

    counts: of the state, int32 (channels, 2 REACH + 1), which the static tables are made of.
    """

    state_names = ("counts",)

    def __init__(self, features: FeatureSpec, state: Mapping[str, npt.NDArray[Any]], **params: Any) -> None:
        self._state = state
        self.model = spec.model(params["model"])
        self.n, self.m = spec.channels(params)
        self.y, self.z = spec.places(image_size(features), self.model)
        self.names = _names(self.model)

    def write(self, latent: Latent, sink: Sink) -> None:
        """Write what is static, then the rest, then a check of the tables where these depend on networks in floats."""
        index = latent.side.get("index", {})
        for name, symbols in latent.symbols.items():
            if name == self.names[0]:
                counts = self._state["counts"]
                prior = channel_prior(counts, symbols.size // len(counts), -REACH, escape=True)
                sink.symbols(name, symbols.ravel(), prior)
            elif self.model.context == spec.RASTER:
                sink.blob(name, encode_raster(symbols.ravel(), index[name]))
            else:
                sink.symbols(name, symbols.ravel(), Indexed(gaussian_tables.tables(), index[name]))
        if self.checked:
            sink.blob("check", check_of(list(index.values())), side=True)

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``. Raises CorruptStream, and PluginError where networks say what the tables are."""
        if self.model.context != spec.FACTORIZED:
            raise PluginError("networks in torch predict the tables of this model: load the encoder, which reads it")
        [name] = self.names
        places = self.y[0] * self.y[1]
        prior = channel_prior(self._state["counts"], places, -REACH, escape=True)
        return Latent(self.shape_symbols([source.symbols(name, self.m * places, prior)]))

    @property
    def checked(self) -> bool:
        """Whether the tables depend on networks in floats, which round otherwise on another machine."""
        return self.model.context in (spec.CHECKERBOARD, spec.RASTER)

    def static_tables(self) -> tuple[Table, ...]:
        """Of each channel of what is coded first."""
        return channel_tables(self._state["counts"], -REACH, escape=True)

    def shape_symbols(self, symbols: Sequence[Int32]) -> dict[str, Int32]:
        """By name, as the spec function says; parts of y, which it does not name, as they are."""
        shapes = {"z": (self.n, *self.z), "y": spec.shape_of_y(self.model, self.m, self.y)}
        named = zip(self.names, symbols, strict=True)
        return {name: part.reshape(shapes[name]) if name in shapes else part for name, part in named}


def _names(known: spec.Model) -> list[str]:
    """Of what is sent, in order."""
    if known.context == spec.FACTORIZED:
        return ["y"]
    if known.context == spec.CHECKERBOARD:
        return ["z", *(f"y{i}" for i in range(2 * known.groups))]
    return ["z", "y"]


def check_of(index: Sequence[Bytes]) -> bytes:
    """Four octets that tell whether both ends came to the same tables."""
    value = 0
    for part in index:
        value = zlib.crc32(part.tobytes(), value)
    return value.to_bytes(CHECK, "little")


def most_raster_bytes(count: int) -> int:
    """Of so many symbols that are coded place after place: the coder's probabilities have 24 bits."""
    return 3 * count + 64


def encode_raster(symbols: Int32, index: Bytes) -> bytes:
    """Symbols and the indexes of their scales, in the order in which they are decoded, by a range coder.

    Tables depend on symbols before them, so no stage can be given a list.
    """
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(symbols, _MODEL, np.zeros(len(index)), scales()[index])
    data: bytes = coder.get_compressed().astype("<u4").tobytes()
    return data


class RasterDecoder:
    """What ``encode_raster`` wrote, place after place. It is memory-safe, whatever bytes it is given."""

    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise CorruptStream("coded symbols are no whole words; the stream is damaged, get it again")
        with only_corrupt():
            self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def decode(self, index: Bytes) -> Int32:
        """The next symbols, by the indexes of their scales. Raises CorruptStream."""
        with only_corrupt():
            symbols: Int32 = self._coder.decode(_MODEL, np.zeros(len(index)), scales()[index])
        return symbols

    def finish(self) -> None:
        """Raises CorruptStream where more follows."""
        with only_corrupt():
            if not self._coder.maybe_exhausted():
                raise CorruptStream("coded symbols are followed by more")


@cache
def scales() -> npt.NDArray[np.float64]:
    """The standard deviations of ``gaussian_tables``, at float32, without a C library's exp, which differs."""
    context = Context(prec=40)
    low, high = Decimal(str(gaussian_tables.LOWEST)), Decimal(str(gaussian_tables.HIGHEST))
    step = context.divide(context.ln(context.divide(high, low)), gaussian_tables.SCALES - 1)
    found = [context.multiply(low, context.exp(context.multiply(step, i))) for i in range(gaussian_tables.SCALES)]
    return np.array([float(scale) for scale in found], np.float32).astype(np.float64)
