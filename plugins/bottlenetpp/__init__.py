"""BottleNet++: a convolutional bottleneck for features at a cut (Shao, Zhang, 2020)."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.bottlenetpp"


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The encoder ``bottlenetpp``."""
    yield Component(
        kind="encoder",
        name="bottlenetpp",
        target=f"{PACKAGE}.encoder:BottleNetPP",
        spec=f"{PACKAGE}.spec:encoder",
        coding=f"{PACKAGE}.coding:BottleNetPPCoding",
        summary="a CNN's features through a learned bottleneck: strided convolution, sigmoid, 8 bits (BottleNet++)",
        params=(
            Param("ratio", int, 4, "values at the cut for each one that is sent", (2, 4, 8, 16, 32, 64), "build",
                  open=True, low=2, high=65536),
            Param("spatial", int, 2, "by how much each side of the maps shrinks; channels do the rest", (1, 2, 4),
                  "build"),
            Param("bits", int, 8, "of each value that is sent", (8, 6, 4, 3, 2, 1), open=True, low=1, high=8),
        ),
        positional="ratio",
        traits={"entropy": "required", "cut": "stem", "device": f"{PACKAGE}.device:BottleNetPPDevice"},
        weights=(f"{PACKAGE}:weights/bottlenetpp4-resnet-nano.safetensors",),
        recipe=f"{PACKAGE}.recipe:recipe",
    )  # fmt: skip
