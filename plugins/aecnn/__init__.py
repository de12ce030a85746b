"""AECNN: attention-based feature compression for CNN inference offloading (Li, Iosifidis, Zhang, 2022)."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.aecnn"
RATIOS = (2, 4, 8, 16, 32, 64)
WEIGHTS = (f"{PACKAGE}:weights/aecnn4-resnet-nano.safetensors",)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The encoder ``aecnn`` and the recoverer ``fr``."""
    yield Component(
        kind="encoder",
        name="aecnn",
        target=f"{PACKAGE}.encoder:AECNN",
        spec=f"{PACKAGE}.spec:encoder",
        coding=f"{PACKAGE}.coding:AECNNCoding",
        summary="the most important channels of a CNN's features, by channel attention; no others are computed (AECNN)",
        params=(
            Param("ratio", int, 4, "channels for each one that is sent", RATIOS, when="build"),
            Param("bits", int, 8, "of each value that is sent", (8, 6, 4, 3, 2, 1), open=True, low=1, high=8),
        ),
        positional="ratio",
        traits={
            "entropy": "required",
            "recoverer": "fr:{ratio}",
            "cut": "stem",
            "device": f"{PACKAGE}.device:AECNNDevice",
        },
        weights=WEIGHTS,
        recipe=f"{PACKAGE}.recipe:recipe",
    )
    yield Component(
        kind="recoverer",
        name="fr",
        target=f"{PACKAGE}.recovery:FeatureRecovery",
        spec=f"{PACKAGE}.spec:recoverer",
        summary="generates each missing channel from all received ones by a light CNN (AECNN's feature recovery)",
        params=(Param("ratio", int, 4, "channels for each one that is received", RATIOS, when="build"),),
        positional="ratio",
        weights=WEIGHTS,
    )
