"""What encoders of patches take and give; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe


def cls_attn(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """``params["edge"]`` is the device's BackboneSpec, or None where building it tells."""
    edge = params["edge"]
    if edge is None:
        return _patches(features, None)
    if edge.patch is None:
        raise SpecMismatch(
            "the device's model has no class token that attends to patches; name one that has, as edge=deit-tiny"
        )
    if describe(edge.input) != describe(features):
        raise SpecMismatch(f"the device's model takes {describe(edge.input)}, the server's {describe(features)}")
    return _patches(features, edge.patch)


def patches(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    return _patches(features, params["side"])


def _patches(features: FeatureSpec, side: int | None) -> EncoderSpec:
    """Patches of ``side`` pixels of an image float32 (3, H, W), and what is known of them: K of h x w."""
    image = features.get("image")
    if set(features) != {"image"} or image is None or len(image.shape) != 3 or image.shape[0] != 3:
        raise SpecMismatch(f"takes pixels, image float32[3xHxW], not {describe(features)}")
    _, height, width = image.shape
    if height is None or width is None:
        raise SpecMismatch(f"takes images of a known size, not {describe(features)}")
    if side is not None and (height % side or width % side):
        raise SpecMismatch(f"images of {height}x{width} are not made of patches of {side}x{side}")
    grid = (height // side, width // side) if side is not None else (None, None)
    return EncoderSpec(
        latent={"mask": TensorSpec(grid, "bool"), "patches": TensorSpec((None, side, side, 3), "uint8")},
        restored={
            "patches": TensorSpec((None, 3, side, side)),
            "index": TensorSpec((None,), "int64"),
            "grid": TensorSpec(grid, "bool"),
        },
    )
