"""YOLO detectors, cut before any layer: the anchor-based YOLOv5, and whatever detector ultralytics builds."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.yolo"
SIDE = Param(
    "side",
    int,
    640,
    "height and width of the input in pixels, a multiple of 32",
    values=(320, 416, 512, 640),
    when="build",
    open=True,
    low=32,
    high=2048,
)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of this package's components."""
    for size, count in (("n", "1.9 M"), ("s", "7.2 M"), ("m", "21 M"), ("l", "47 M"), ("x", "87 M")):
        yield Component(
            kind="backbone",
            name=f"yolov5{size}",
            target=f"{PACKAGE}.backbone:YOLOv5{size.upper()}",
            spec=f"{PACKAGE}.spec:yolov5{size}",
            summary=f"YOLOv5{size} v6.0, the detector with anchors, {count} parameters",
            params=(SIDE,),
            requires=("ultralytics",),
            extra="yolo",
            license="AGPL-3.0",
            traits={"classes": 80},
            recipe=f"{PACKAGE}.recipe:recipe",
        )
    yield Component(
        kind="backbone",
        name="yolo/*",
        target=f"{PACKAGE}.segmenters:UltralyticsBackbone",
        summary="what of ultralytics detects or segments, by its name there, as in yolo/yolo11n or yolo/yolo11n-seg",
        params=(SIDE,),
        requires=("ultralytics",),
        extra="yolo",
        license="AGPL-3.0",
        traits={"classes": 80, "example": "yolov8n", "task": f"{PACKAGE}.spec:task"},
        recipe=f"{PACKAGE}.recipe:recipe",
    )
