"""What A-MOT and the masked autoencoder take and give; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from semcodec.coding.patches import patch_spec, usual_side
from semcodec.specs import BackboneSpec, EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe, image_size


def adaptive(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """Sends two masks, restores patches. Raises SpecMismatch for another server, or ``first`` above ``keep``."""
    server: BackboneSpec | None = params["server"]
    if server is not None and (server.task != "classification" or describe(server.input) != describe(features)):
        raise SpecMismatch(f"its server takes {describe(server.input)}, the pipeline's {describe(features)}")
    coded = patch_spec(features, params["side"])
    if params["first"] > params["keep"]:
        raise SpecMismatch(f"first={params['first']} is more than keep={params['keep']}, which counts both rounds")
    return replace(coded, latent=dict.fromkeys(("first", "second"), coded.latent["mask"]))


def patches(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """What ``patch_spec`` says of ``side``."""
    return patch_spec(features, params["side"])


def grid_of(features: FeatureSpec) -> tuple[int | None, int | None, int | None]:
    """Rows and columns of patches and their side, None where building the encoder tells. Raises SpecMismatch."""
    if {"patches", "index", "grid"} <= set(features):
        rows, columns = features["grid"].shape
        return rows, columns, features["patches"].shape[2]
    height, width = image_size(features)
    side = usual_side(height, width)
    if height % side or width % side:
        raise SpecMismatch(f"an image of {height}x{width} has no whole patches of {side}x{side}")
    return height // side, width // side, side


def rebuilt(features: FeatureSpec, params: Mapping[str, Any]) -> FeatureSpec:
    """The whole image. Raises SpecMismatch for anything but patches or an image that is made of them."""
    if params["dim"] % 32:
        raise SpecMismatch(f"dim={params['dim']} is no multiple of 32, the width of a head")
    rows, columns, side = grid_of(features)
    if rows is None or columns is None or side is None:
        return {"image": TensorSpec((3, None, None))}
    return {"image": TensorSpec((3, rows * side, columns * side))}
