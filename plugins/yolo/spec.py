"""What YOLO detectors take and give at each cut; no torch.

Layers are numbered as in the model's configuration, the picture is number -1. A cut is named by the layer before which
the model is cut: at "5" the device has computed layers 0 to 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from semcodec.specs import BackboneSpec, SpecMismatch, TensorSpec

INPUT, IMAGE = "input", "image"
INSTANCES, SEMANTIC = "-seg", "-sem"
"""Endings of the names of models that segment objects, and pixels."""


class Layer(NamedTuple):
    """reads: numbers of the layers it reads. channels, stride: of its map; a stride is in pixels of the input."""

    reads: tuple[int, ...]
    channels: int = 0
    stride: int = 0


YOLOV5 = (
    Layer((-1,), 64, 2),
    Layer((0,), 128, 4),
    Layer((1,), 128, 4),
    Layer((2,), 256, 8),
    Layer((3,), 256, 8),  # P3
    Layer((4,), 512, 16),
    Layer((5,), 512, 16),  # P4
    Layer((6,), 1024, 32),
    Layer((7,), 1024, 32),
    Layer((8,), 1024, 32),  # P5: the backbone ends here
    Layer((9,), 512, 32),
    Layer((10,), 512, 16),
    Layer((11, 6), 1024, 16),
    Layer((12,), 512, 16),
    Layer((13,), 256, 16),
    Layer((14,), 256, 8),
    Layer((15, 4), 512, 8),
    Layer((16,), 256, 8),
    Layer((17,), 256, 16),
    Layer((18, 14), 512, 16),
    Layer((19,), 512, 16),
    Layer((20,), 512, 32),
    Layer((21, 10), 1024, 32),
    Layer((22,), 1024, 32),
    Layer((17, 20, 23)),  # detection
)
"""YOLOv5 v6.0 at width 1."""

WIDTHS = {"n": 0.25, "s": 0.5, "m": 0.75, "l": 1.0, "x": 1.25}


def feature(layer: int) -> str:
    """What the output of a layer is called among features."""
    return IMAGE if layer < 0 else f"layer{layer}"


def cuts(layers: int) -> list[str]:
    """Names of the cuts before each layer."""
    return [INPUT, *map(str, range(1, layers))]


def carried(reads: Sequence[Sequence[int]], cut: int) -> list[int]:
    """Layers before ``cut`` that a layer from there on reads: what must cross it."""
    return sorted({number for layer in reads[cut:] for number in layer if number < cut})


def task(model: str, **params: Any) -> str:
    """What a model of ultralytics' is for, by its name."""
    return "segmentation" if model.endswith((INSTANCES, SEMANTIC)) else "detection"


def layered(reads: Sequence[Sequence[int]], shapes: Mapping[str, TensorSpec], task: str = "detection") -> BackboneSpec:
    """Of a model whose layers read what ``reads`` says; ``shapes`` are by feature."""
    return BackboneSpec(
        task=task,
        input={IMAGE: shapes[IMAGE]},
        cuts={
            at: {name: shapes[name] for name in map(feature, carried(reads, cut))}
            for cut, at in enumerate(cuts(len(reads)))
        },
        fit="letterbox",
    )


def check_side(side: int, coarsest: int) -> None:
    """Raise SpecMismatch where maps do not divide the input."""
    if side % coarsest:
        raise SpecMismatch(f"side={side} is no multiple of the {coarsest} pixels of its coarsest map")


def _yolov5(size: str, params: Mapping[str, Any]) -> BackboneSpec:
    side, width = params["side"], WIDTHS[size]
    check_side(side, max(layer.stride for layer in YOLOV5))
    shapes = {IMAGE: TensorSpec((3, side, side))}
    for number, layer in enumerate(YOLOV5[:-1]):
        inside = side // layer.stride
        shapes[feature(number)] = TensorSpec((round(layer.channels * width), inside, inside))
    return layered([layer.reads for layer in YOLOV5], shapes)


def yolov5n(params: Mapping[str, Any]) -> BackboneSpec:
    """Of YOLOv5n at the given ``side``."""
    return _yolov5("n", params)


def yolov5s(params: Mapping[str, Any]) -> BackboneSpec:
    """Of YOLOv5s at the given ``side``."""
    return _yolov5("s", params)


def yolov5m(params: Mapping[str, Any]) -> BackboneSpec:
    """Of YOLOv5m at the given ``side``."""
    return _yolov5("m", params)


def yolov5l(params: Mapping[str, Any]) -> BackboneSpec:
    """Of YOLOv5l at the given ``side``."""
    return _yolov5("l", params)


def yolov5x(params: Mapping[str, Any]) -> BackboneSpec:
    """Of YOLOv5x at the given ``side``."""
    return _yolov5("x", params)
