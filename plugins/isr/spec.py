"""What ISR takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe


def _image(features: FeatureSpec) -> tuple[int, int]:
    """Height and width."""
    spec = features.get("image")
    if spec is None or len(spec.shape) != 3 or spec.shape[0] != 3 or spec.dtype != "float32" or None in spec.shape:
        raise SpecMismatch(f"takes an RGB image float32[3xHxW] of a known size, not {describe(features)}")
    _, height, width = spec.shape
    assert height is not None and width is not None
    return height, width


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    height, width = _image(features)
    scale = params["scale"]
    if height % scale or width % scale:
        raise SpecMismatch(f"an image of {height}x{width} cannot be divided by scale={scale}")
    small = (3, height // scale, width // scale)
    return EncoderSpec(latent={"image": TensorSpec(small, "uint8")}, restored={"image": TensorSpec(small)})


def enlarged(features: FeatureSpec, params: Mapping[str, Any]) -> FeatureSpec:
    height, width = _image(features)
    return {"image": TensorSpec((3, height * params["scale"], width * params["scale"]))}
