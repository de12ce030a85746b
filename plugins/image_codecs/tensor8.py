"""Any features at 8 bits a value: q = round(255 (x - min) / (max - min)) per tensor; integers without loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semcodec.errors import CorruptStream, UsageError
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial, Sink, Source
from semcodec.priors import Counted
from semcodec.specs import FeatureSpec
from semcodec_plugins.image_codecs.spec import FLOATS

MAX_ELEMENTS = 1 << 27
"""Bound on a tensor whose shape the spec leaves open."""

LEVELS = 255


class Tensor8(Encoder):
    """Side information: each float tensor's minimum and maximum as float32, and the axes that the spec leaves open."""

    def __init__(self, features: FeatureSpec) -> None:
        self.specs = dict(features)

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        arrays = {name: features[name].detach().cpu().numpy() for name in self.specs}
        return [self._quantise({name: array[row] for name, array in arrays.items()}) for row in range(_batch(arrays))]

    def _quantise(self, sample: dict[str, Any]) -> Latent:
        latent = Latent({})
        for name, array in sample.items():
            if self.specs[name].dtype in FLOATS:
                if not np.isfinite(array).all():
                    raise UsageError(f"tensor8: '{name}' holds NaN or infinity, which 8 bits cannot send")
                low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
                latent.side[name] = (low, high)
                array = np.rint((array.astype(np.float64) - low) * (LEVELS / ((high - low) or 1))).astype(np.uint8)
            latent.symbols[name] = array
        return latent

    def write(self, latent: Latent, sink: Sink) -> None:
        head = b""
        for name, spec in self.specs.items():
            array = latent.symbols[name]
            axes = [n for n, due in zip(array.shape, spec.shape, strict=True) if due is None]
            head += np.array(axes, "<u4").tobytes() + np.array(latent.side.get(name, ()), "<f4").tobytes()
        if head:
            sink.blob("ranges", head, side=True)
        for name in self.specs:
            for part, words in _words(name, latent.symbols[name]).items():
                sink.symbols(part, words, Counted())

    def read(self, source: Source) -> Latent:
        opens = {name: spec.shape.count(None) for name, spec in self.specs.items()}
        floats = {name: 2 * (spec.dtype in FLOATS) for name, spec in self.specs.items()}
        size = 4 * (sum(opens.values()) + sum(floats.values()))
        head = source.blob("ranges", size) if size else b""
        if len(head) != size:
            raise CorruptStream(f"tensor8: {len(head)} bytes of ranges where {size} are due")
        latent, at = Latent({}), 0
        for name, spec in self.specs.items():
            axes = iter(np.frombuffer(head, "<u4", opens[name], at).tolist())
            shape = tuple(next(axes) if due is None else due for due in spec.shape)
            at += 4 * opens[name]
            if math.prod(shape) > max(MAX_ELEMENTS, spec.size if not opens[name] else 0):
                raise CorruptStream(f"tensor8: '{name}' claims the shape {shape}, more than {MAX_ELEMENTS} values")
            if floats[name]:
                low, high = np.frombuffer(head, "<f4", 2, at).tolist()
                at += 8
                if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                    raise CorruptStream(f"tensor8: '{name}' claims the range {low} to {high}")
                latent.side[name] = (low, high)
            latent.symbols[name] = _read_words(name, shape, "uint8" if floats[name] else spec.dtype, source)
        return latent

    def restore(self, latent: Latent) -> Partial:
        features = {}
        for name, spec in self.specs.items():
            array = latent.symbols[name]
            if name in latent.side:
                low, high = latent.side[name]
                array = (low + array * ((high - low) / LEVELS)).clip(low, high)
            features[name] = torch.from_numpy(np.array(array, dtype=spec.dtype))[None]
        return Partial(features)


def _batch(arrays: Mapping[str, Any]) -> int:
    sizes = {len(array) for array in arrays.values()}
    if len(sizes) != 1:
        raise UsageError(f"tensor8: features of different batch sizes {sorted(sizes)}")
    return sizes.pop()


def _words(name: str, array: Any) -> dict[str, Any]:
    """Symbols by chunk name: values as int32, or 64-bit ones as their low and high halves."""
    if array.dtype.itemsize < 8:
        return {name: array.ravel().astype(np.int32)}
    halves = np.ascontiguousarray(array.ravel(), "<i8").view("<i4").reshape(-1, 2).astype(np.int32)
    return {name: halves[:, 0].copy(), f"{name}.high": halves[:, 1].copy()}


def _read_words(name: str, shape: tuple[int, ...], dtype: str, source: Source) -> Any:
    count = math.prod(shape)
    words = source.symbols(name, count, Counted())
    if np.dtype(dtype).itemsize == 8:
        halves = np.stack([words, source.symbols(f"{name}.high", count, Counted())], axis=1)
        return halves.astype("<i4").view("<i8").astype(dtype).reshape(shape)
    values = words.astype(dtype)
    if not np.array_equal(values, words):
        raise CorruptStream(f"tensor8: '{name}' holds a value that is no {dtype}; the stream is damaged, get it again")
    return values.reshape(shape)
