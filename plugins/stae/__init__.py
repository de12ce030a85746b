"""STAE: spatiotemporal attention autoencoder for video recognition (Li, Bennis, Iosifidis, Zhang, 2023)."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

WEIGHTS = ("semcodec_plugins.stae:weights/stae-vit-nano.safetensors",)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of STAE, and its Recoverer."""
    yield Component(
        kind="encoder",
        name="stae",
        target="semcodec_plugins.stae.encoder:STAE",
        coding="semcodec_plugins.stae.coding:STAECoding",
        spec="semcodec_plugins.stae.spec:encoder",
        summary="frame and spatial attention choose the frames and pixels of a clip to send (STAE)",
        params=(
            Param(
                "frames",
                int,
                8,
                "frame budget: frames kept",
                (1, 2, 4, 8, 16),
                open=True,
                low=1,
                high=16,
                earlier={1: 4},
            ),
            Param(
                "pixels",
                float,
                1.0,
                "spatial budget: fraction of each kept frame's pixels",
                (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4),
                open=True,
                low=0.01,
                high=1.0,
                earlier={1: 0.4},
            ),
            Param(
                "coding",
                str,
                "webp",
                "how kept pixels are sent; raw is the paper's",
                ("raw", "jpeg", "webp", "h264", "h265", "av1"),
                earlier={1: "raw"},
            ),
            Param(
                "quality",
                int,
                10,
                "of pictures and video",
                (1, 10, 30, 50, 75, 90),
                open=True,
                low=1,
                high=100,
                earlier={1: 75},
            ),
        ),
        stream_version=2,
        reads=(1, 2),
        traits={
            "entropy": "mixed",
            "targets": ("frames", "pixels"),
            "device": "semcodec_plugins.stae.device:STAEDevice",
            "recoverer": "cnn-3d2d",
            "tasks": ("video",),
        },
        weights=WEIGHTS,
        recipe="semcodec_plugins.stae.recipe:recipe",
    )
    yield Component(
        kind="recoverer",
        name="cnn-3d2d",
        target="semcodec_plugins.stae.recovery:CNN3D2D",
        spec="semcodec_plugins.stae.spec:recoverer",
        summary="fills missing pixels of frames by a 3D CNN that guides a 2D one (STAE's feature recovery)",
        traits={"tasks": ("video",)},
        weights=WEIGHTS,
    )
    yield Component(
        kind="recoverer",
        name="none",
        target="semcodec_plugins.stae.recovery:Identity",
        spec="semcodec_plugins.stae.spec:identity",
        summary="leaves what is missing at zero",
    )
