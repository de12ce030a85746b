"""What the image backbones take and give; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from semcodec.specs import BackboneSpec, TensorSpec


@dataclass(frozen=True)
class Size:
    """Width and depth of an embedded ViT; ``stem``: channels within its patch embedding."""

    dim: int
    depth: int
    stem: int


SIDE, PATCH = 96, 8
EDGE = Size(64, 3, stem=48)
SERVER = Size(96, 5, stem=64)


MAPS = "maps"
"""Name of the features at every cut but the input."""


def classifier(
    height: int,
    width: int,
    crop: float,
    interpolation: str,
    patch: int | None,
    maps: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> BackboneSpec:
    """Of a model for ``height`` x ``width`` pixels.

    patch: where its tail takes patches of that side alone. maps: by inner cut, in order, the shape (C, H, W) there.
    """
    image = {"image": TensorSpec((3, height, width))}
    forms = [image]
    if patch is not None:
        forms.append({"patches": TensorSpec((None, 3, patch, patch)), "index": TensorSpec((None,), "int64")})
    return BackboneSpec(
        task="classification",
        input=image,
        cuts={"input": image, **{cut: {MAPS: TensorSpec(shape)} for cut, shape in maps.items()}},
        tail={"input": forms},
        crop=crop,
        interpolation=interpolation,
        patch=patch,
    )


def deit(params: Mapping[str, Any]) -> BackboneSpec:
    """Of DeiT, which has no parameters."""
    return classifier(224, 224, 0.9, "bicubic", 16)


def nano(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the embedded ViTs, which have no parameters."""
    return classifier(SIDE, SIDE, 1.0, "bicubic", PATCH)
