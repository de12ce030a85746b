"""PCA of the channels at a cut, as a layered stream, with and without a learned 1x1 convolution behind it."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.pca"
PARAMS = (
    Param("rank", int, 0, "components of each tensor that can be sent at most; 0: as many as it has channels",
          (0, 16, 32, 64), "build", open=True, low=0, high=8192),
    Param("components", int, 8, "components of each tensor that are sent, at most all", (1, 2, 4, 8, 16, 32, 64),
          open=True, low=1),
    Param("group", int, 4, "components of each tensor in one layer of the stream", (1, 2, 4, 8, 16), open=True, low=1),
    Param("bits", int, 8, "of the component that varies most; the step is the same for all", (8, 7, 6, 5, 4, 3),
          open=True, low=1, high=8),
)  # fmt: skip


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The encoders ``pca`` and ``pca-adapt``."""
    yield Component(
        kind="encoder",
        name="pca",
        target=f"{PACKAGE}.encoder:PCA",
        spec=f"{PACKAGE}.spec:encoder",
        coding=f"{PACKAGE}.coding:PCACoding",
        summary="the leading principal components of the channels at a cut, in layers (PCA)",
        params=PARAMS,
        positional="components",
        traits={"entropy": "required", "device": f"{PACKAGE}.device:PCADevice"},
        weights=(f"{PACKAGE}:weights/pca-resnet-nano.safetensors",),
        recipe=f"{PACKAGE}.recipe:pca",
    )
    yield Component(
        kind="encoder",
        name="pca-adapt",
        target=f"{PACKAGE}.encoder:PCAAdapt",
        spec=f"{PACKAGE}.spec:encoder",
        coding=f"{PACKAGE}.coding:PCACoding",
        summary="pca with a learned 1x1 convolution after it, which adapts what is received to the model",
        params=PARAMS,
        positional="components",
        traits={"entropy": "required", "device": f"{PACKAGE}.device:PCADevice"},
        weights=(f"{PACKAGE}:weights/pca-adapt-resnet-nano.safetensors",),
        recipe=f"{PACKAGE}.recipe:pca_adapt",
    )
