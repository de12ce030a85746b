"""What ISR takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, image_size


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """Sent and restored is the image, smaller by ``scale``. Raises SpecMismatch unless that divides both sides."""
    height, width = image_size(features)
    scale = params["scale"]
    if height % scale or width % scale:
        raise SpecMismatch(f"an image of {height}x{width} cannot be divided by scale={scale}")
    small = (3, height // scale, width // scale)
    return EncoderSpec(latent={"image": TensorSpec(small, "uint8")}, restored={"image": TensorSpec(small)})


def enlarged(features: FeatureSpec, params: Mapping[str, Any]) -> FeatureSpec:
    """The image, larger by ``scale``. Raises SpecMismatch for anything but an RGB image of a known size."""
    height, width = image_size(features)
    return {"image": TensorSpec((3, height * params["scale"], width * params["scale"]))}
