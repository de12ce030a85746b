"""Features at a cut as video: channels tiled into frames and coded by H.265, AV1 or H.264, the field's own baseline."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.feature_video"
WEIGHTS = ("resnet-nano", "det-nano", "vit-nano")
QP = Param(
    "qp",
    int,
    32,
    "the codec's quantiser: 0 faithful to 51 small, of av1 to 63",
    (22, 27, 32, 37, 42, 47),
    open=True,
    low=0,
    high=63,
)
VIDEO = (
    Param("codec", str, "h265", "the video codec", ("h264", "h265", "av1")),
    Param("bits", int, 10, "of a value before the video codec", (8, 10)),
    Param("ranges", str, "tensor", "what has a minimum and a maximum of its own", ("tensor", "channel")),
)

NEEDS_TORCH = "it quantises and packs features into frames with torch"


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The encoders ``feature-video`` and ``feature-video-pca``."""
    yield Component(
        kind="encoder",
        name="feature-video",
        target=f"{PACKAGE}.encoder:FeatureVideo",
        spec=f"{PACKAGE}.spec:encoder",
        coding=f"{PACKAGE}.coding:FeatureVideoCoding",
        summary="features at a cut tiled into frames of video, as MPEG's anchors for coding of features are",
        params=(QP, *VIDEO),
        positional="qp",
        traits={"entropy": "mixed", "needs_torch": NEEDS_TORCH},
        license="GPL-2.0-or-later",
    )
    yield Component(
        kind="encoder",
        name="feature-video-pca",
        target=f"{PACKAGE}.encoder:FeatureVideoPCA",
        spec=f"{PACKAGE}.spec:encoder",
        coding=f"{PACKAGE}.coding:FeatureVideoCoding",
        summary="the leading principal components of the channels at a cut as frames of video",
        params=(
            Param(
                "rank",
                int,
                0,
                "components of each tensor that can be sent at most; 0: as many as it has channels",
                (0, 16, 64),
                when="build",
                open=True,
                low=0,
                high=8192,
            ),
            Param(
                "components",
                int,
                8,
                "components of each tensor that are sent, at most all",
                (1, 2, 4, 8, 16, 32),
                open=True,
                low=1,
            ),
            QP,
            *VIDEO,
        ),
        positional="components",
        traits={"entropy": "mixed", "needs_torch": NEEDS_TORCH},
        license="GPL-2.0-or-later",
        weights=tuple(f"{PACKAGE}:weights/feature-video-pca-{name}.safetensors" for name in WEIGHTS),
        recipe=f"{PACKAGE}.recipe:recipe",
    )
