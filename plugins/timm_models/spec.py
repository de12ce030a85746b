"""What the image backbones take and give; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semcodec.specs import BackboneSpec, classifier_spec


@dataclass(frozen=True)
class Size:
    """Width and depth of an embedded ViT; ``stem``: channels within its patch embedding."""

    dim: int
    depth: int
    stem: int


SIDE, PATCH = 96, 8
EDGE = Size(64, 3, stem=48)
SERVER = Size(96, 5, stem=64)


def deit(params: Mapping[str, Any]) -> BackboneSpec:
    """Of DeiT, which has no parameters."""
    return classifier_spec(224, 224, 0.9, "bicubic", 16)


def nano(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the embedded ViTs, which have no parameters."""
    return classifier_spec(SIDE, SIDE, 1.0, "bicubic", PATCH)
