"""What BottleNet++ takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, map_size

MOST_WEIGHTS = 1 << 26
"""Of each half: a header names their sizes, and whoever reads it builds them."""


@dataclass(frozen=True)
class Shapes:
    """(channels, height, width) of the features at the cut, named ``name``, and of what is sent of them."""

    name: str
    features: tuple[int, int, int]
    sent: tuple[int, int, int]


def shapes(features: FeatureSpec, ratio: int, spatial: int) -> Shapes:
    """C' = C * spatial ** 2 / ratio channels of H / spatial x W / spatial. Raises SpecMismatch if any is not whole."""
    name, (channels, height, width) = map_size(features)
    if height % spatial or width % spatial:
        raise SpecMismatch(f"spatial={spatial} does not divide the {height}x{width} of {name}; use spatial=1")
    if channels * spatial**2 % ratio:
        fits = [n for n in (2, 4, 8, 16, 32, 64) if channels * spatial**2 % n == 0]
        advice = f"use ratio={' or '.join(map(str, fits))}" if fits else "use another spatial"
        raise SpecMismatch(
            f"ratio={ratio} does not divide {channels} channels x spatial={spatial} squared of {name}; {advice}"
        )
    sent = channels * spatial**2 // ratio, height // spatial, width // spatial
    if (weights := channels * sent[0] * max(3, spatial) ** 2) > MOST_WEIGHTS:
        raise SpecMismatch(f"a bottleneck of {weights} weights is above the {MOST_WEIGHTS} of one; use a larger ratio")
    return Shapes(name, (channels, height, width), sent)


def window(spatial: int) -> tuple[int, int, int]:
    """Kernel, stride and padding: patches that do not overlap where the maps shrink; 3x3 where they do not."""
    return (3, 1, 1) if spatial == 1 else (spatial, spatial, 0)


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """The map that is sent, int32. Raises SpecMismatch."""
    found = shapes(features, params["ratio"], params["spatial"])
    channels, height, width = found.sent
    figures = {"8-bit values, bytes": float(channels * height * width)}
    return EncoderSpec({found.name: TensorSpec(found.sent, "int32")}, restored=features, figures=figures)
