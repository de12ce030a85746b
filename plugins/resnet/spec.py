"""Shapes at the cuts of residual networks; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semcodec.specs import BackboneSpec, SpecMismatch, classifier_spec


@dataclass(frozen=True)
class Layout:
    """blocks: how many each stage has; stages: channels after each. The stem has 64 at a quarter of the side."""

    blocks: tuple[int, ...]
    stages: tuple[int, ...]


BASIC, BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)
LAYOUTS = {18: Layout((2, 2, 2, 2), BASIC), 34: Layout((3, 4, 6, 3), BASIC), 50: Layout((3, 4, 6, 3), BOTTLENECK)}
NANO_SIDE = 96
NANO = Layout((1, 2, 2, 1), (128, 192, 256, 256))
CROP = 0.875
"""256 pixels of a picture's shorter side make 224."""


def maps(layout: Layout, side: int) -> dict[str, tuple[int, int, int]]:
    """By cut, (C, H, W); each stage but the first halves the maps. ``layer1`` is where its last block ends."""
    side //= 4
    found = {"stem": (64, side, side)}
    for i, (channels, blocks) in enumerate(zip(layout.stages, layout.blocks, strict=True), 1):
        side = side if i == 1 else side // 2
        names = (*(f"layer{i}.{block}" for block in range(blocks)), f"layer{i}")
        found |= dict.fromkeys(names, (channels, side, side))
    return found


def _published(depth: int) -> BackboneSpec:
    return classifier_spec(224, 224, 0.95, "bicubic", None, maps(LAYOUTS[depth], 224))


def resnet18(params: Mapping[str, Any]) -> BackboneSpec:
    """Of timm's network at 224 pixels."""
    return _published(18)


def resnet34(params: Mapping[str, Any]) -> BackboneSpec:
    """Of timm's network at 224 pixels."""
    return _published(34)


def resnet50(params: Mapping[str, Any]) -> BackboneSpec:
    """Of timm's network at 224 pixels."""
    return _published(50)


def resnet50_caffe(params: Mapping[str, Any]) -> BackboneSpec:
    """At the side that is asked for. Raises SpecMismatch for one that 32 does not divide."""
    side = params["side"]
    if side % 32:
        raise SpecMismatch(f"its side is a multiple of 32, not {side}")
    return classifier_spec(side, side, CROP, "bilinear", None, maps(LAYOUTS[50], side))


def nano(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the embedded network."""
    return classifier_spec(NANO_SIDE, NANO_SIDE, 1.0, "bicubic", None, maps(NANO, NANO_SIDE))
