"""What filled pixels are; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.specs import FeatureSpec, SpecMismatch, TensorSpec, describe


def filled(features: FeatureSpec, params: Mapping[str, Any]) -> FeatureSpec:
    """Images and clips as they are; patches (K, 3, p, p) on a "grid" (h, w) become an image."""
    if {"patches", "grid"} <= set(features):
        side, grid = features["patches"].shape[2], features["grid"].shape
        return {"image": TensorSpec((3, *(None if n is None or side is None else n * side for n in grid)))}
    for name in ("image", "frames"):
        if name in features and features[name].dtype == "float32" and features[name].shape[-3:-2] == (3,):
            return features
    raise SpecMismatch(f"fills pixels: an image, frames or patches on a grid, not {describe(features)}")
