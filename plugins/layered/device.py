"""Both learned codecs on a device without torch: reductions of maps in integers, of tokens by exported networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.coding.integer_conv import ACTIVATION_BITS, Convolution
from semcodec.coding.quantiser import check_finite
from semcodec.device_half import Arrays, DeviceEncoder, DeviceParts
from semcodec.errors import UsageError
from semcodec.specs import TOKENS, FeatureSpec
from semcodec.types import Analysis, Latent
from semcodec_plugins.layered import spec
from semcodec_plugins.layered.coding import (
    LARGEST,
    CodecCoding,
    FeatureHyperpriorCoding,
    LayeredCoding,
    TokenCoding,
    count_layers,
)
from semcodec_plugins.layered.reduction import FEATURE_BITS, Fixed, reduced, window


class _Codec(DeviceEncoder):
    """Of maps or of tokens, as the cut has them."""

    form: type[CodecCoding]

    def __init__(self, features: FeatureSpec, parts: DeviceParts, **params: Any) -> None:
        self.parts, self.names = parts, list(spec.shapes_of(features))
        self.stack = spec.stack_of(features, params)
        self.coding: CodecCoding = self.form(features, parts.arrays, **params)
        self.levels: int = self.coding.levels

    def encode(
        self, features: Arrays, analysis: Analysis, masks: Mapping[str, Any], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Only the layers that are sent are computed."""
        count = count_layers(params, self.stack)
        if self.levels:
            level = spec.chosen_level(params, self.levels)
            return [self._of_tokens(tokens, count, level) for tokens in features[TOKENS]]
        return [self._of_maps({n: features[n][row] for n in self.names}, count) for row in range(_batch(features))]

    def _of_maps(self, maps: Arrays, count: int) -> Latent:
        fixed = {name: Fixed(array) for name, array in maps.items()}
        symbols = {
            f"y{i + 1}.{name}": reduced(self._reduction(i, t), fixed[name], self.stack[i].stride)
            for i in range(count)
            for t, name in enumerate(self.names)
        }
        return Latent(symbols)

    def _reduction(self, layer: int, tensor: int) -> Convolution:
        prefix, stride = f"units_of.{layer}.{tensor}.reduction.whole_", self.stack[layer].stride
        weight, bias = (self.parts.arrays[prefix + name] for name in ("weight", "bias"))
        return Convolution(weight, bias, stride, window(stride)[1], FEATURE_BITS)

    def _of_tokens(self, tokens: npt.NDArray[np.float32], count: int, level: int) -> Latent:
        check_finite(tokens)
        latent = Latent({}, {"level": level})
        for i in range(count):
            unit = self.coding.units[i][TOKENS]
            assert isinstance(unit, TokenCoding)
            [y] = self.parts.graphs[f"reduce{i}"](tokens[None])
            gain = self.parts.arrays[f"gain{i}"][level]
            y = y * gain.reshape(-1, *[1] * (y.ndim - 2))
            [z] = self.parts.graphs[f"describe{i}"](y)
            found = _whole(z[0])
            means, _ = unit.predict(found, y.shape[1:], level)
            latent.symbols[f"z{i + 1}.{TOKENS}"] = found
            rest = y[0].astype(np.float64) - (means / 2**ACTIVATION_BITS).astype(np.float32)
            latent.symbols[f"y{i + 1}.{TOKENS}"] = _whole(rest)
        return latent


class FeatureHyperpriorDevice(_Codec):
    """Of ``feature-hyperprior``."""

    form = FeatureHyperpriorCoding


class LayeredDevice(_Codec):
    """Of ``layered``."""

    form = LayeredCoding


def _batch(features: Arrays) -> int:
    return len(next(iter(features.values())))


def _whole(x: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Values, rounded as integer networks do. Raises UsageError for what is too large."""
    found = np.floor(x.astype(np.float64) + 0.5)
    if not np.abs(found).max() <= LARGEST:
        raise UsageError("the features are too large to code; look at the input or weights")
    whole: npt.NDArray[np.int32] = found.astype(np.int32)
    return whole
