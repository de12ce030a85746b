"""Layers put on top of a codec that has learned, which its training begins with."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

_OF_LAYER = re.compile(r"(units_of|high\.expansions|decoder\.expansions|decoder\.gains)\.([0-9]+)(\.|$)")


def with_layers_of(codec: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a codec of as many layers as this one or fewer; those of the layers above stay as this one has them.

    Other layers, or other channels of one, are left to whoever fills the codec, who refuses them.
    """
    layers = {int(match[2]) for name in tensors if (match := _OF_LAYER.match(name))}
    if not layers:
        return dict(tensors)
    own = codec.state_dict().items()
    above = {name: t for name, t in own if (match := _OF_LAYER.match(name)) and int(match[2]) > max(layers)}
    return {**tensors, **above}
