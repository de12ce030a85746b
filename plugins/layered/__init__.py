"""Learned codecs at a cut: a scale hyperprior at one rate, and layers of which every prefix decodes (Yuan et al.)."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.layered"
WEIGHTS = (
    "det-nano",
    "seg-nano",
    "cls-nano-det-nano-embed-nano",
    "cls-nano-det-nano-embed-nano-seg-nano",
    "vit-nano-embed",
    "vit-nano-server-block2",
    "deit-tiny-block4",
)
PRIOR = Param(
    "prior",
    str,
    "hyper",
    "what integers are coded under: scales that are sent first, or one static table a channel",
    ("hyper", "factorized"),
    when="build",
)
WIDTH = Param(
    "width",
    int,
    0,
    "at maps: channels of the network that mends what is expanded; 0: half of the features'",
    (0, 64, 128),
    when="build",
    open=True,
    low=0,
    high=1024,
)
LEVEL = Param(
    "level",
    int,
    0,
    "at tokens: which of the rates, from 1, the fewest bytes; 0 is the most",
    (1, 2, 3, 4),
    open=True,
    low=0,
    high=16,
)
TOKENS = (
    Param(
        "levels",
        int,
        4,
        "at tokens: rates that one set of weights has",
        (1, 2, 4, 6),
        when="build",
        open=True,
        low=1,
        high=16,
    ),
    Param(
        "blocks",
        int,
        2,
        "at tokens: transformer blocks of the decoder, which fill what was not sent",
        (1, 2),
        when="build",
        open=True,
        low=1,
        high=8,
    ),
)


def _trade(default: float) -> Param:
    return Param(
        "lambda",
        float,
        default,
        "weight of the distortion, or of the task's loss, beside the rate in training",
        (0.05, 0.15, 0.5, 1.5),
        when="build",
        open=True,
        low=0.001,
        high=100_000.0,
    )


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The encoders ``feature-hyperprior`` and ``layered``."""
    yield Component(
        kind="encoder",
        name="feature-hyperprior",
        target=f"{PACKAGE}.encoder:FeatureHyperprior",
        spec=f"{PACKAGE}.spec:single",
        coding=f"{PACKAGE}.coding:FeatureHyperpriorCoding",
        summary="features reduced, rounded and coded under a scale hyperprior: one rate for each set of weights",
        params=(
            Param(
                "channels",
                int,
                16,
                "channels that each feature is reduced to",
                (4, 8, 16, 32),
                when="build",
                open=True,
                low=1,
                high=512,
            ),
            _trade(1.0),
            PRIOR,
            Param("stride", int, 2, "places along each side that become one", (1, 2, 4, 8), when="build"),
            WIDTH,
            LEVEL,
            *TOKENS,
        ),
        traits={"entropy": "required", "device": f"{PACKAGE}.device:FeatureHyperpriorDevice"},
        weights=tuple(f"{PACKAGE}:weights/feature-hyperprior-{of}.safetensors" for of in ("det-nano", "seg-nano")),
        recipe=f"{PACKAGE}.recipe:single",
    )
    yield Component(
        kind="encoder",
        name="layered",
        target=f"{PACKAGE}.encoder:Layered",
        spec=f"{PACKAGE}.spec:layered",
        coding=f"{PACKAGE}.coding:LayeredCoding",
        summary="features in a base and enhancement layers: a packet cut at the end of any layer decodes",
        params=(
            Param("layers", int, 0, "layers that are sent; 0 sends all", (1, 2, 3, 4), open=True, low=0, high=64),
            Param(
                "channels",
                str,
                "4x4-8x2-12-20",
                "channels of each layer and x its stride, 2 or that of the layer before where it is left out; "
                "of clips, x that along time; as it stands here, at tokens 48x2, and 8x1 of clips",
                ("4x4-8x2-12-20",),
                when="build",
                open=True,
            ),
            _trade(4.0),
            Param(
                "low",
                int,
                0,
                "so many layers, or fewer, are decoded by a second task decoder for low rates; 0: there is one",
                (0, 1, 2),
                when="build",
                open=True,
                low=0,
                high=63,
            ),
            PRIOR,
            WIDTH,
            LEVEL,
            *TOKENS,
            Param(
                "serves",
                str,
                "",
                "of a stream for several tasks, how many layers each needs, as detection.1-classification.2; 1 where "
                "nothing is said",
                when="build",
                open=True,
                weighs=False,
            ),
        ),
        traits={
            "entropy": "required",
            "device": f"{PACKAGE}.device:LayeredDevice",
            "serves": ("serves", "layers"),
        },
        weights=tuple(f"{PACKAGE}:weights/layered-{of}.safetensors" for of in WEIGHTS),
        recipe=f"{PACKAGE}.recipe:layered",
    )
