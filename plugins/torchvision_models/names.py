"""Which of torchvision's models there are here; no torch until one is looked up."""

from __future__ import annotations

from typing import Any

from semcodec.errors import UsageError, did_you_mean

SEGMENTING = (
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet101",
    "deeplabv3_resnet50",
    "fcn_resnet101",
    "fcn_resnet50",
    "lraspp_mobilenet_v3_large",
)
DETECTING = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)
FIXED = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}
"""Sides of the models that take no other."""
SIDES = {"fasterrcnn_mobilenet_v3_large_320_fpn": 320, **FIXED}
SEGMENTS, DETECTS = 520, 800
"""Sides of all others: torchvision's own at evaluation, but for the picture's shape."""
STRIDE = 32
"""Of the coarsest maps of a detector, whose multiple its side is."""


def check(model: str, side: int | None = None) -> None:
    """Raise UsageError for a name that is none of a model for segmentation or detection, and a side it cannot take."""
    known = (*SEGMENTING, *DETECTING)
    if model not in known:
        hint = did_you_mean(model, known, f"there are {', '.join(known[:8])}, ...", most=3)
        raise UsageError(f"torchvision has no model {model!r} that segments or detects: {hint}")
    side_of(model, side)


def task(model: str, **params: Any) -> str:
    """What a model is for."""
    check(model)
    return "segmentation" if model in SEGMENTING else "detection"


def side_of(model: str, given: int | None) -> int:
    """Height and width of a model's input. Raises UsageError for one that it cannot take."""
    side = given or SIDES.get(model, SEGMENTS if model in SEGMENTING else DETECTS)
    if model in FIXED and side != FIXED[model]:
        raise UsageError(f"torchvision/{model} takes pictures of {FIXED[model]} pixels a side, not {side}")
    if model in DETECTING and model not in FIXED and side % STRIDE:
        raise UsageError(f"torchvision/{model}: side={side} is no multiple of {STRIDE}, the stride of its coarsest map")
    return side


def weights(model: str) -> Any:
    """torchvision's record of the weights that it would take itself."""
    check(model)
    from torchvision.models import get_model_weights

    return get_model_weights(model).DEFAULT


def address(model: str, **params: Any) -> str:
    """Where these weights are published; the file's name ends in the start of its SHA-256."""
    return str(weights(model).url)


def classes(model: str) -> list[str]:
    """Names of the classes that published weights know: a detector's without the background, VOC's with it."""
    names = list(weights(model).meta["categories"])
    if model in DETECTING:
        return names[1:]
    return ["background" if name == "__background__" else name for name in names]
