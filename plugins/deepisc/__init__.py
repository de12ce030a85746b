"""DeepISC: latent, semantic segmentation and residual of images (Huang, Tao, Gao, Lu, 2021), with STAE's frames."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.deepisc"


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of DeepISC."""
    yield Component(
        kind="encoder",
        name="deepisc",
        target=f"{PACKAGE}.encoder:DeepISC",
        coding=f"{PACKAGE}.coding:DeepISCCoding",
        spec=f"{PACKAGE}.spec:encoder",
        summary="latent, semantic segmentation and the residual to what is synthesised from the two (DeepISC)",
        params=(
            Param("frames", int, 4, "frame budget: frames of a clip kept", (1, 2, 4, 8, 16), open=True, low=1, high=16),
            Param("pixels", float, 0.4, "share of each frame's pixels whose residual is sent, drawn at random",
                  (1.0, 0.8, 0.6, 0.4, 0.2, 0.0), open=True, low=0.0, high=1.0),
            Param("step", int, 2, "of the residual's quantiser, in levels of 8 bits", (2, 4, 8, 16, 32), open=True,
                  low=2, high=64),
            Param("entropy", str, "latent", "what is entropy coded: the latent, as published, or all three parts",
                  ("latent", "all")),
        ),
        traits={"entropy": "mixed", "targets": ("frames",), "device": f"{PACKAGE}.device:DeepISCDevice"},
        weights=(f"{PACKAGE}:weights/deepisc-vit-nano.safetensors",),
        recipe=f"{PACKAGE}.recipe:recipe",
    )  # fmt: skip
