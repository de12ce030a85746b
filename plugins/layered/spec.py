"""What learned codecs at a cut take and give; no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semcodec.specs import TOKENS, EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, map_sizes, token_grid

STRIDES = (1, 2, 4, 8)
MOST = 512
"""Channels of one layer."""
MOST_WEIGHTS = 1 << 26
"""Of the networks of all layers and tensors: a header names their sizes, and whoever reads it builds them."""
CHANNELS = "4x4-8x2-12-20"
"""Layers at maps where none are named."""
AT_TOKENS = {2: "48x2", 3: "8x1"}
"""The same at tokens of images and of clips, by the axes of their grid: many rates come of one layer there."""
LEVELS, BLOCKS = 4, 2
"""At tokens, rates of one set of weights and transformer blocks of the decoder, where none are named."""
_LAYER = re.compile(r"([1-9][0-9]*)(?:x([1-9][0-9]*)(?:x([1-9][0-9]*))?)?")


@dataclass(frozen=True)
class Layer:
    """Channels that every tensor of the cut is reduced to, and how many places along each side become one.

    time: how many do along the time of clips.
    """

    channels: int
    stride: int
    time: int = 1

    def strides(self, axes: int) -> tuple[int, ...]:
        """Along each axis of a grid: [time,] rows, columns."""
        return *(self.time,) * (axes - 2), self.stride, self.stride


def layers(text: str | int) -> tuple[Layer, ...]:
    """By "8x4-16x2-32" 8 channels at stride 4, then 16 and 32 more at stride 2; by "8x2x4" at stride 4 along time.

    Raises SpecMismatch.
    """
    found = [_LAYER.fullmatch(part) for part in str(text).split("-")]
    if None in found:
        raise SpecMismatch(f"channels is a row of CHANNELSxSTRIDE, as 8x4-16x2-32x2, not {text!r}")
    made, stride, time = [], 2, 1
    for match in filter(None, found):
        stride, time = int(match[2] or stride), int(match[3] or time)
        made.append(Layer(int(match[1]), stride, time))
    if any(one.channels > MOST or {one.stride, one.time} - set(STRIDES) for one in made) or len(made) > 64:
        raise SpecMismatch(
            f"up to 64 layers have up to {MOST} channels each and strides of {', '.join(map(str, STRIDES))}"
        )
    return tuple(made)


def holds_tokens(features: FeatureSpec) -> bool:
    """Whether a cut's features are tokens rather than maps."""
    return TOKENS in features


def shapes_of(features: FeatureSpec) -> dict[str, tuple[int, ...]]:
    """By tensor that is coded, (C, [T,] H, W). Raises SpecMismatch for neither maps nor tokens of a known grid."""
    if not holds_tokens(features):
        return dict(map_sizes(features))
    grid, dim, _ = token_grid(features)
    return {TOKENS: (dim, *grid)}


def stack_of(features: FeatureSpec, params: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers that build parameters ask for at a cut. Raises SpecMismatch."""
    if "stride" in params:
        return (Layer(params["channels"], params["stride"]),)
    axes = len(token_grid(features)[0]) if holds_tokens(features) else 2
    usual = holds_tokens(features) and params["channels"] == CHANNELS
    stack = layers(AT_TOKENS[axes] if usual else params["channels"])
    if axes == 2 and any(layer.time > 1 for layer in stack):
        raise SpecMismatch(f"channels={params['channels']} has a stride along time, and only clips have time")
    return stack


def places(shape: tuple[int, ...], layer: Layer) -> tuple[int, ...]:
    """Shape of one layer's integers of one tensor: (C, [t,] h, w)."""
    _, *sides = shape
    strides = layer.strides(len(sides))
    return layer.channels, *(-(-side // stride) for side, stride in zip(sides, strides, strict=True))


def token_side_channels(channels: int) -> int:
    """Channels of z, which describes y of so many, at tokens."""
    return max(2, min(12, channels))


def side_places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of z, of which one place describes two of y along each axis, at tokens."""
    channels, *sides = shape
    return token_side_channels(channels), *(-(-side // 2) for side in sides)


def chosen_level(params: Mapping[str, Any], levels: int) -> int:
    """The level that call parameters name, from 0, the coarsest."""
    level: int = params.get("level") or levels
    return level - 1


def count_weights(shapes: Mapping[str, tuple[int, ...]], stack: Sequence[Layer]) -> int:
    """About how many weights the device's networks have: reductions, and those that predict scales."""
    return sum(
        channels * layer.channels * (2 * layer.stride) ** 2 * (2 * layer.time - 1) + 45 * layer.channels**2
        for channels, *_ in shapes.values()
        for layer in stack
    )


def _at_tokens(
    features: FeatureSpec, stack: Sequence[Layer], params: Mapping[str, Any], sent: int | None = None
) -> EncoderSpec:
    """The same of tokens. Raises SpecMismatch, also for what is of maps alone."""
    shape, (_, dim, prefix) = shapes_of(features)[TOKENS], token_grid(features)
    if params["prior"] != "hyper" or params.get("low") or params.get("width"):
        raise SpecMismatch("tokens are coded under prior=hyper and by one decoder of blocks, low=0 and width=0")
    if params["level"] > params["levels"]:
        raise SpecMismatch(f"level={params['level']} is more than levels={params['levels']}")
    decoder = params["blocks"] * 12 * dim**2 + (math.prod(shape[1:]) + prefix) * dim
    if (count := count_weights({TOKENS: shape}, stack) + decoder) > MOST_WEIGHTS:
        raise SpecMismatch(f"so many channels and blocks are {count} weights, of at most {MOST_WEIGHTS}")
    latent: dict[str, TensorSpec] = {}
    for i, layer in enumerate(stack[:sent], 1):
        inner = places(shape, layer)
        latent |= {
            f"z{i}.{TOKENS}": TensorSpec(side_places(inner), "int32"),
            f"y{i}.{TOKENS}": TensorSpec(inner, "int32"),
        }
    return EncoderSpec(latent=latent, restored=dict(features))


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
    """Of ``feature-hyperprior``. Raises SpecMismatch for neither maps nor tokens, and for too many weights."""
    stack = stack_of(features, params)
    if holds_tokens(features):
        return _at_tokens(features, stack, params)
    _refuse_of_tokens(params)
    return _encoder(features, stack)


def layered(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """Of ``layered``. Raises SpecMismatch, also for layers that there are not."""
    stack = stack_of(features, params)
    if params["layers"] > len(stack):
        raise SpecMismatch(f"layers={params['layers']} is more than the {len(stack)} of channels={params['channels']}")
    for need in re.findall(r"\.([0-9]+)", params.get("serves", "")):
        if int(need) > len(stack):
            raise SpecMismatch(f"serves={params['serves']} names layer {need}, and there are {len(stack)}")
    if holds_tokens(features):
        return _at_tokens(features, stack, params, params["layers"] or None)
    _refuse_of_tokens(params)
    if params["low"] >= len(stack):
        raise SpecMismatch(f"low={params['low']} leaves none of {len(stack)} layers to the high-rate decoder")
    return _encoder(features, stack, params["layers"] or None)


def _refuse_of_tokens(params: Mapping[str, Any]) -> None:
    usual = {"level": 0, "levels": LEVELS, "blocks": BLOCKS}
    for name, value in usual.items():
        if params.get(name, value) != value:
            raise SpecMismatch(f"{name} is of tokens, at a transformer's cut; leave it out at maps")
