"""torchvision's models for segmentation and detection, under BSD, cut at every stage of their feature extractors."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.torchvision_models"


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of this package's components."""
    yield Component(
        kind="backbone",
        name="torchvision/*",
        target=f"{PACKAGE}.backbone:TorchvisionBackbone",
        summary="torchvision's models for segmentation and detection, as in torchvision/deeplabv3_resnet50",
        params=(
            Param(
                "side",
                int,
                None,
                "height and width of the input in pixels; left out, the model's own",
                values=(320, 520, 800),
                when="build",
                open=True,
                low=64,
                high=2048,
            ),
        ),
        requires=("torchvision",),
        license="BSD-3-Clause",
        traits={
            "hub": f"{PACKAGE}.names:address",
            "known": f"{PACKAGE}.names:check",
            "example": "lraspp_mobilenet_v3_large",
            "task": f"{PACKAGE}.names:task",
        },
        recipe=f"{PACKAGE}.recipe:recipe",
    )
