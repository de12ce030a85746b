"""What SDT takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.specs import BackboneSpec, EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe, image_size


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """``params["server"]`` is the asking model's BackboneSpec, or None where building it tells."""
    height, width = image_size(features)
    scale, server = params["scale"], params["server"]
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
    return EncoderSpec(latent={"asked": TensorSpec(grid, "bool")}, restored=dict(features))
