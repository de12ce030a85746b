"""What the video ViTs take and give; no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from semcodec.specs import BackboneSpec, SpecMismatch, TensorSpec, some_tokens, token_cuts

FRAMES = 16
PATCH = 16
TUBELET = 2


@dataclass(frozen=True)
class Size:
    """Width, depth and heads of a ViT; ``stem`` the channels of a convolutional patch embedding, if any."""

    dim: int
    depth: int
    heads: int
    stem: tuple[int, ...] = ()


SIZES = {
    "nano": Size(128, 4, 4, stem=(32, 64, 96)),
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
}


def _of(size: Size) -> Callable[[Mapping[str, Any]], BackboneSpec]:
    def spec(params: Mapping[str, Any]) -> BackboneSpec:
        side = params["side"]
        if side % PATCH:
            raise SpecMismatch(f"side={side} is no multiple of the {PATCH}-pixel patches")
        clip = {"frames": TensorSpec((FRAMES, 3, side, side)), "index": TensorSpec((FRAMES,), "int64")}
        some = {"frames": TensorSpec((None, 3, side, side)), "index": TensorSpec((None,), "int64")}
        tokens = token_cuts(size.depth, (FRAMES // TUBELET, side // PATCH, side // PATCH), size.dim)
        return BackboneSpec(
            task="video",
            input={"frames": clip["frames"]},
            cuts={"input": clip, **tokens},
            tail={"input": (some,), **some_tokens(tokens)},
        )

    return spec


nano, tiny, small, base = (_of(SIZES[name]) for name in ("nano", "tiny", "small", "base"))
