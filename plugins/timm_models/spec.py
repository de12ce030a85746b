"""What the image backbones take and give; no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from semcodec.specs import BackboneSpec, classifier_spec, token_cuts


@dataclass(frozen=True)
class Size:
    """Width and depth of an embedded ViT; ``stem``: channels within its patch embedding."""

    dim: int
    depth: int
    stem: int


SIDE, PATCH = 96, 8
EDGE = Size(64, 3, stem=48)
SERVER = Size(96, 5, stem=64)


Spec = Callable[[Mapping[str, Any]], BackboneSpec]


def _deit(dim: int) -> Spec:
    def spec(params: Mapping[str, Any]) -> BackboneSpec:
        """Of DeiT, which has no parameters."""
        return classifier_spec(224, 224, 0.9, "bicubic", 16, tokens=token_cuts(12, (14, 14), dim, 1))

    return spec


def _nano(size: Size) -> Spec:
    def spec(params: Mapping[str, Any]) -> BackboneSpec:
        """Of an embedded ViT, which has no parameters."""
        tokens = token_cuts(size.depth, (SIDE // PATCH, SIDE // PATCH), size.dim, 1)
        return classifier_spec(SIDE, SIDE, 1.0, "bicubic", PATCH, tokens=tokens)

    return spec


deit_tiny, deit_small, deit_base = _deit(192), _deit(384), _deit(768)
nano_edge, nano_server = _nano(EDGE), _nano(SERVER)
