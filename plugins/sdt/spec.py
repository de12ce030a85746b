"""What SDT takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.specs import BackboneSpec, EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """``params["server"]`` is the asking model's BackboneSpec, or None where building it tells."""
    image, server = features.get("image"), params["server"]
    if image is None or len(image.shape) != 3 or image.shape[0] != 3 or None in image.shape:
        raise SpecMismatch(f"takes RGB pixels of a known size, image float32[3xHxW], not {describe(features)}")
    _, height, width = image.shape
    assert height is not None and width is not None
    scale = params["scale"]
    if height % scale or width % scale:
        raise SpecMismatch(f"an image of {height}x{width} cannot be divided by scale={scale}")
    grid: tuple[int | None, int | None] = (None, None)
    if isinstance(server, BackboneSpec):
        if server.patch is None:
            raise SpecMismatch(
                "its server has no class token that attends to patches; name one that has, as server=deit-tiny"
            )
        if describe(server.input) != describe(features):
            raise SpecMismatch(f"its server takes {describe(server.input)}, the pipeline's {describe(features)}")
        grid = height // server.patch, width // server.patch
    return EncoderSpec(latent={"asked": TensorSpec(grid, "bool")}, restored={"image": image})
