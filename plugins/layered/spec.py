"""What learned codecs at a cut take and give; no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, map_sizes

STRIDES = (1, 2, 4, 8)
MOST = 512
"""Channels of one layer."""
MOST_WEIGHTS = 1 << 26
"""Of the networks of all layers and tensors: a header names their sizes, and whoever reads it builds them."""
_LAYER = re.compile(r"([1-9][0-9]*)(?:x([1-9][0-9]*))?")


@dataclass(frozen=True)
class Layer:
    """Channels that every tensor of the cut is reduced to, and the places along each side that become one."""

    channels: int
    stride: int


def layers(text: str | int) -> tuple[Layer, ...]:
    """By "8x4-16x2-32" 8 channels at stride 4, then 16 and 32 more at stride 2. Raises SpecMismatch."""
    found = [_LAYER.fullmatch(part) for part in str(text).split("-")]
    if None in found:
        raise SpecMismatch(f"channels is a row of CHANNELSxSTRIDE, as 8x4-16x2-32x2, not {text!r}")
    made, stride = [], 2
    for match in filter(None, found):
        stride = int(match[2] or stride)
        made.append(Layer(int(match[1]), stride))
    if any(layer.channels > MOST or layer.stride not in STRIDES for layer in made) or len(made) > 64:
        raise SpecMismatch(
            f"up to 64 layers have up to {MOST} channels each and strides of {', '.join(map(str, STRIDES))}"
        )
    return tuple(made)


def places(shape: tuple[int, int, int], layer: Layer) -> tuple[int, int, int]:
    """Shape of one layer's integers of one tensor."""
    _, height, width = shape
    return layer.channels, -(-height // layer.stride), -(-width // layer.stride)


def count_weights(shapes: Mapping[str, tuple[int, int, int]], stack: Sequence[Layer]) -> int:
    """About how many weights the device's networks have: reductions, and those that predict scales."""
    return sum(
        channels * layer.channels * (2 * layer.stride) ** 2 + 45 * layer.channels**2
        for channels, _, _ in shapes.values()
        for layer in stack
    )


def _encoder(features: FeatureSpec, stack: Sequence[Layer], sent: int | None = None) -> EncoderSpec:
    """Of a stack of layers of which the first so many, or all, are sent. Raises SpecMismatch where it is too large."""
    shapes = map_sizes(features)
    if (count := count_weights(shapes, stack)) > MOST_WEIGHTS:
        raise SpecMismatch(f"so many channels at such strides are {count} weights, of at most {MOST_WEIGHTS}")
    latent = {
        f"y{i}.{name}": TensorSpec(places(shape, layer), "int32")
        for i, layer in enumerate(stack[:sent], 1)
        for name, shape in shapes.items()
    }
    return EncoderSpec(latent=latent, restored=dict(features))


def single(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """Of ``feature-hyperprior``. Raises SpecMismatch for what is no map, and for too many weights."""
    return _encoder(features, (Layer(params["channels"], params["stride"]),))


def layered(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """Of ``layered``. Raises SpecMismatch, also for layers that there are not."""
    stack = layers(params["channels"])
    if params["layers"] > len(stack):
        raise SpecMismatch(f"layers={params['layers']} is more than the {len(stack)} of channels={params['channels']}")
    if params["low"] >= len(stack):
        raise SpecMismatch(f"low={params['low']} leaves none of {len(stack)} layers to the high-rate decoder")
    return _encoder(features, stack, params["layers"] or None)
