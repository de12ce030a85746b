"""What pictures and 8-bit tensors take and give; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.coding.video_params import LEAST
from semcodec.specs import BackboneSpec, EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe, image_size

FLOATS = ("float32", "float16")
HOMES = {
    "bpgenc": "https://bellard.org/bpg",
    "bpgdec": "https://bellard.org/bpg",
    "vvencapp": "https://github.com/fraunhoferhhi/vvenc",
}
"""Where programs come from."""
BLOCK = 16
"""Pixels a side of what ``roi-jpeg`` chooses among: the blocks of JPEG at 4:2:0."""


def picture(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """An image float32 (3, H, W), or a clip float32 (T, 3, H, W) of which ``frames`` (0: all) are sent."""
    frames = params.get("frames") or 0
    if set(features) == {"image"} and _is_rgb(features["image"], 3):
        if frames:
            raise SpecMismatch(f"frames={frames} is for clips, not for {describe(features)}")
        return EncoderSpec(latent={"image": TensorSpec(features["image"].shape, "uint8")}, restored=dict(features))
    if "frames" in features and set(features) <= {"frames", "index"} and _is_rgb(features["frames"], 4):
        total, *rest = features["frames"].shape
        if total is None or None in rest:
            raise SpecMismatch(f"takes clips of a known size, not {describe(features)}")
        if frames > total:
            raise SpecMismatch(f"frames={frames} is more than the clip's {total}")
        sent = (frames or total, *rest)
        restored = {"frames": TensorSpec(sent), "index": TensorSpec(sent[:1], "int64")}
        return EncoderSpec(latent={"frames": TensorSpec(sent, "uint8")}, restored=restored)
    raise SpecMismatch(
        f"takes RGB pixels, image float32[3xHxW] or frames float32[Tx3xHxW], not {describe(features)}; "
        "pictures go with the cut 'input', tensor8 with any cut"
    )


def local(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """As pictures; ``params["model"]`` is the device's BackboneSpec, or None where building it tells."""
    model: BackboneSpec | None = params["model"]
    if model is not None and describe(model.cuts["input"]) != describe(features):
        raise SpecMismatch(f"the device's model takes {describe(model.cuts['input'])}, here is {describe(features)}")
    return picture(features, params)


def video(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """A clip as pictures are, with even sides: chroma has half the resolution."""
    if "frames" not in features:
        raise SpecMismatch(f"takes clips, frames float32[Tx3xHxW], not {describe(features)}")
    spec = picture(features, params)
    if any(side is None or side % 2 for side in features["frames"].shape[-2:]):
        raise SpecMismatch(f"video in 4:2:0 takes frames with even sides, not {features['frames']}")
    return spec


def large_video(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """A clip with even sides of ``LEAST`` pixels or more."""
    spec = video(features, params)
    if any(side is None or side < LEAST for side in features["frames"].shape[-2:]):
        raise SpecMismatch(f"takes frames of at least {LEAST} pixels a side, not {features['frames']}")
    return spec


def regions(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """An image of a known size, so that the number of its blocks is known."""
    image_size(features)
    return picture(features, params)


def _is_rgb(spec: TensorSpec, axes: int) -> bool:
    return spec.dtype == "float32" and len(spec.shape) == axes and spec.shape[-3] == 3


def tensor8(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """Any features: floats as uint8, the rest as it is."""
    latent = {
        name: TensorSpec(spec.shape, "uint8" if spec.dtype in FLOATS else spec.dtype) for name, spec in features.items()
    }
    return EncoderSpec(latent=latent, restored=dict(features))
