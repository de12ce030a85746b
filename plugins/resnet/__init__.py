"""Residual networks, cut after their stem, any block or any stage."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.resnet"


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The backbones ``resnet18``, ``-34``, ``-50``, ``resnet50-caffe`` and ``resnet-nano``."""
    for depth, count in ((18, "11.7 M"), (34, "21.8 M"), (50, "25.6 M")):
        yield Component(
            kind="backbone",
            name=f"resnet{depth}",
            target=f"{PACKAGE}.backbone:ResNet{depth}",
            spec=f"{PACKAGE}.spec:resnet{depth}",
            summary=f"ResNet-{depth} of timm, {count} parameters",
            requires=("timm",),
            traits={"hub": f"timm/resnet{depth}.a1_in1k", "classes": 1000},
        )
    yield Component(
        kind="backbone",
        name="resnet50-caffe",
        target=f"{PACKAGE}.backbone:ResNet50Caffe",
        spec=f"{PACKAGE}.spec:resnet50_caffe",
        summary="ResNet-50 as first published, its last stage and classifier trained on your data",
        params=(
            Param(
                "side",
                int,
                224,
                "height and width of the input in pixels, a multiple of 32",
                values=(128, 160, 224),
                when="build",
                open=True,
                low=64,
                high=512,
            ),
        ),
        positional="side",
        requires=("timm",),
        recipe=f"{PACKAGE}.recipe:last_stage",
    )
    yield Component(
        kind="backbone",
        name="resnet-nano",
        target=f"{PACKAGE}.backbone:ResNetNano",
        spec=f"{PACKAGE}.spec:nano",
        summary="embedded residual network of 96x96 pixels",
        requires=("timm",),
        weights=(f"{PACKAGE}:weights/resnet-nano.safetensors",),
        recipe=f"{PACKAGE}.recipe:scenes",
    )
