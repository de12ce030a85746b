"""What DeepISC takes, and the shapes of what it sends; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe

LATENT, CLASSES = 4, 8
"""Channels of the latent, and classes of the segmentation."""
LATENT_STRIDE, SEGMENT_STRIDE = 8, 2
LATENT_BITS, SEGMENT_BITS = 4, 3


@dataclass(frozen=True)
class Shapes:
    """total: frames of a clip, 1 of a still; height, width: of a frame. Coarser maps cover a frame that is padded."""

    name: str
    total: int
    height: int
    width: int

    @property
    def latent(self) -> tuple[int, int]:
        return -(-self.height // LATENT_STRIDE), -(-self.width // LATENT_STRIDE)

    @property
    def segments(self) -> tuple[int, int]:
        scale = LATENT_STRIDE // SEGMENT_STRIDE
        return scale * self.latent[0], scale * self.latent[1]

    def residuals(self, pixels: float) -> int:
        """Pixels of a frame whose residual is sent."""
        return round(pixels * self.height * self.width)


def shapes(features: FeatureSpec) -> Shapes:
    """Raises SpecMismatch for anything but an RGB picture or clip of a known size."""
    for name, ahead in (("frames", 1), ("image", 0)):
        spec = features.get(name)
        if spec is None:
            continue
        right = len(spec.shape) == ahead + 3 and spec.shape[ahead] == 3 and spec.dtype == "float32"
        if not right or set(features) - {name, "index"}:
            break
        total, (height, width) = spec.shape[0] if ahead else 1, spec.shape[-2:]
        if total is None or height is None or width is None:
            raise SpecMismatch(f"takes pictures of one size, which {name} {spec} leaves open")
        return Shapes(name, total, height, width)
    raise SpecMismatch(f"takes RGB frames float32[Tx3xHxW] or an RGB image float32[3xHxW], not {describe(features)}")


def largest(step: int) -> int:
    """The residual's largest symbol, either way: that of a difference of 255 levels."""
    return (255 + (step - 1) // 2) // step


def residual_bits(step: int) -> int:
    """Of each residual symbol where these are not entropy coded."""
    return (2 * largest(step)).bit_length()


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """Integers sent, and pictures restored. Raises SpecMismatch as ``shapes`` does, and for a clip of fewer frames."""
    found = shapes(features)
    kept = params["frames"]
    if found.name == "image":
        kept, restored = 1, features
    elif kept > found.total:
        raise SpecMismatch(f"frames={kept} is more than the clip's {found.total}; set frames")
    else:
        frames = TensorSpec((kept, 3, found.height, found.width))
        restored = {"frames": frames, "index": TensorSpec((kept,), "int64")}
    latent = {
        "latent": TensorSpec((LATENT, kept, *found.latent), "int32"),
        "segments": TensorSpec((kept, *found.segments), "uint8"),
        "residual": TensorSpec((kept * found.residuals(params["pixels"]), 3), "int16"),
    }
    if found.name == "frames":
        latent["kept"] = TensorSpec((found.total,), "bool")
    figures = {"S of eq. (1), bytes": 4.0 * kept * 3 * params["pixels"] * found.height * found.width}
    return EncoderSpec(latent, restored, figures)
