"""What AECNN takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, map_size


def feature_map(features: FeatureSpec, ratio: int) -> tuple[str, int, int, int]:
    """The map's name, channels, height and width. Raises SpecMismatch where ``ratio`` does not divide the channels."""
    name, (channels, height, width) = map_size(features)
    if channels % ratio:
        fits = [str(n) for n in range(2, 65) if channels % n == 0 and n & (n - 1) == 0]
        advice = f"use ratio={' or '.join(fits)}" if fits else "cut the model elsewhere"
        raise SpecMismatch(f"ratio={ratio} does not divide the {channels} channels of {name}; {advice}")
    return name, channels, height, width


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """The kept channels, uint8. Raises SpecMismatch where the ratio does not divide all channels."""
    ratio = params["ratio"]
    name, channels, height, width = feature_map(features, ratio)
    sent = TensorSpec((channels // ratio, height, width), "uint8")
    figures = {"S_l / V of eqs. (1) and (2), bytes": 4.0 * channels * height * width / ratio}
    return EncoderSpec(latent={name: sent}, restored=features, figures=figures)


def recoverer(features: FeatureSpec, params: Mapping[str, Any]) -> FeatureSpec:
    """The features as they are. Raises SpecMismatch where the ratio does not divide their channels."""
    feature_map(features, params["ratio"])
    return features
