"""What AECNN takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe


def feature_map(features: FeatureSpec, ratio: int) -> tuple[str, int, int, int]:
    """The map's name, channels, height and width. Raises SpecMismatch where ``ratio`` does not divide the channels."""
    [(name, spec), *others] = features.items()
    if others or len(spec.shape) != 3 or spec.dtype != "float32" or None in spec.shape:
        raise SpecMismatch(
            f"takes one map float32[CxHxW] of a known size, such as a CNN's features at @stem, not {describe(features)}"
        )
    channels, height, width = spec.shape
    assert channels is not None and height is not None and width is not None
    if channels % ratio:
        fits = [str(n) for n in range(2, 65) if channels % n == 0 and n & (n - 1) == 0]
        advice = f"use ratio={' or '.join(fits)}" if fits else "cut the model elsewhere"
        raise SpecMismatch(f"ratio={ratio} does not divide the {channels} channels of {name} {spec}; {advice}")
    return name, channels, height, width


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    ratio = params["ratio"]
    name, channels, height, width = feature_map(features, ratio)
    sent = TensorSpec((channels // ratio, height, width), "uint8")
    figures = {"S_l / V of eqs. (1) and (2), bytes": 4.0 * channels * height * width / ratio}
    return EncoderSpec(latent={name: sent}, restored=features, figures=figures)


def recoverer(features: FeatureSpec, params: Mapping[str, Any]) -> FeatureSpec:
    feature_map(features, params["ratio"])
    return features
