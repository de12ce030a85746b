"""What the embedded detector takes and gives at each cut; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from semcodec.specs import BackboneSpec, TensorSpec

SIDE = 96


class Stage(NamedTuple):
    """channels, stride: of its map, in pixels of the input. reads: what it is made of. crosses: what does, after it."""

    channels: int
    stride: int
    reads: tuple[str, ...]
    crosses: tuple[str, ...]


STAGES = {
    "stem": Stage(16, 2, ("image",), ("stem",)),
    "d2": Stage(32, 4, ("stem",), ("d2",)),
    "d3": Stage(64, 8, ("d2",), ("d3",)),
    "d4": Stage(80, 16, ("d3",), ("d3", "d4")),
    "neck": Stage(64, 8, ("d3", "d4"), ("neck",)),
}
"""In order. A cut of a stage's name comes after it: d3 is the map of an eighth of the picture's side."""
HEAD = ("stem", "d2", "d3")
"""The stages that the models of this package have in common; behind them each is its own."""


def nano(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the embedded detector, which has no parameters."""
    image = {"image": TensorSpec((3, SIDE, SIDE))}
    shapes = {
        name: TensorSpec((stage.channels, SIDE // stage.stride, SIDE // stage.stride)) for name, stage in STAGES.items()
    }
    cuts = {name: {crossing: shapes[crossing] for crossing in stage.crosses} for name, stage in STAGES.items()}
    return BackboneSpec(task="detection", input=image, cuts={"input": image, **cuts}, fit="letterbox")


def segmenter(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the embedded model that segments, which has no parameters: cut as the detector is."""
    return replace(nano(params), task="segmentation")


def classifier(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the embedded classifier, which has no parameters: cut up to d3, as the detector is."""
    return _up_to_head(params, "classification")


def embedder(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the embedded model of embeddings, which has no parameters: cut up to d3, as the detector is."""
    return _up_to_head(params, "retrieval")


def drawer(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the embedded model that reconstructs pictures, which has no parameters: cut up to d3, as the detector is."""
    return _up_to_head(params, "reconstruction")


def _up_to_head(params: Mapping[str, Any], task: str) -> BackboneSpec:
    detector = nano(params)
    return replace(detector, task=task, cuts={name: detector.cuts[name] for name in ("input", *HEAD)})
