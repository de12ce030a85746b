"""What BottleNet++ takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe


@dataclass(frozen=True)
class Shapes:
    """(channels, height, width) of the features at the cut, named ``name``, and of what is sent of them."""

    name: str
    features: tuple[int, int, int]
    sent: tuple[int, int, int]


def shapes(features: FeatureSpec, ratio: int, spatial: int) -> Shapes:
    """C' = C * spatial ** 2 / ratio channels of H / spatial x W / spatial. Raises SpecMismatch if any is not whole."""
    [(name, spec), *others] = features.items()
    if others or len(spec.shape) != 3 or spec.dtype != "float32" or None in spec.shape:
        raise SpecMismatch(
            f"takes one map float32[CxHxW] of a known size, such as a CNN's features at @stem, not {describe(features)}"
        )
    channels, height, width = spec.shape
    assert channels is not None and height is not None and width is not None
    if height % spatial or width % spatial:
        raise SpecMismatch(f"spatial={spatial} does not divide the {height}x{width} of {name} {spec}; use spatial=1")
    if channels * spatial**2 % ratio:
        fits = [n for n in (2, 4, 8, 16, 32, 64) if channels * spatial**2 % n == 0]
        advice = f"use ratio={' or '.join(map(str, fits))}" if fits else "use another spatial"
        raise SpecMismatch(
            f"ratio={ratio} does not divide {channels} channels x spatial={spatial} squared of {name} {spec}; {advice}"
        )
    sent = channels * spatial**2 // ratio, height // spatial, width // spatial
    return Shapes(name, (channels, height, width), sent)


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    found = shapes(features, params["ratio"], params["spatial"])
    channels, height, width = found.sent
    figures = {"8-bit values, bytes": float(channels * height * width)}
    return EncoderSpec({found.name: TensorSpec(found.sent, "int32")}, restored=features, figures=figures)
