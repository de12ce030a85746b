"""What STAE takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.coding.video_params import CODECS, LEAST
from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe


def _frames(features: FeatureSpec) -> TensorSpec:
    spec = features.get("frames")
    if spec is None or len(spec.shape) != 4 or spec.shape[1] != 3 or spec.dtype != "float32":
        raise SpecMismatch(f"takes RGB frames float32[Tx3xHxW], not {describe(features)}")
    return spec


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """Frames, pixels and masks sent, and frames restored. Raises SpecMismatch for no clip, or one of fewer frames."""
    total, _, height, width = _frames(features).shape
    frames, pixels = params["frames"], params["pixels"]
    if total is not None and frames > total:
        raise SpecMismatch(f"frames={frames} is more than the clip's {total}")
    assert height is not None and width is not None
    if params["coding"] in CODECS and (height % 2 or width % 2 or min(height, width) < LEAST):
        raise SpecMismatch(
            f"coding={params['coding']} takes frames with even sides of at least {LEAST}, not {height}x{width}"
        )
    kept = max(1, round(pixels * height * width))
    latent = {"frames": TensorSpec((total,), "bool"), "pixels": TensorSpec((frames, kept, 3), "uint8")}
    if kept < height * width:
        latent["mask"] = TensorSpec((frames, height, width), "bool")
    restored = {"frames": TensorSpec((frames, 3, height, width)), "index": TensorSpec((frames,), "int64")}
    figures = {"S of eq. (1), bytes": 4.0 * frames * 3 * pixels * height * width}
    return EncoderSpec(latent=latent, restored=restored, figures=figures)


def recoverer(features: FeatureSpec, params: Mapping[str, Any]) -> FeatureSpec:
    """What comes in. Raises SpecMismatch for no clip, and for sides that are no multiples of eight."""
    _, _, height, width = _frames(features).shape
    if height is not None and width is not None and (height % 8 or width % 8):
        raise SpecMismatch(f"frames of {height}x{width} do not halve three times")
    return features


def identity(features: FeatureSpec, params: Mapping[str, Any]) -> FeatureSpec:
    """What comes in."""
    return features
