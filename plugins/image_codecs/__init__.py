"""Pictures and 8-bit tensors as encoders: what every other method is compared with."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

FRAMES = Param(
    "frames", int, 0, "frames of a clip to send, uniformly spaced; 0 sends all", (1, 2, 4, 8, 16), open=True, low=0
)


def _quality(default: int) -> Param:
    sweep = (10, 25, 40, 60, 75, 90)
    return Param("quality", int, default, "1 small to 100 faithful", sweep, open=True, low=1, high=100)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    for name, target, summary, params in (
        ("jpeg", "Jpeg", "the input as a JPEG picture", (_quality(75), FRAMES)),
        ("webp", "Webp", "the input as a WebP picture", (_quality(75), FRAMES)),
        ("avif", "Avif", "the input as an AVIF picture", (_quality(60), FRAMES)),
        ("png", "Png", "the input as a PNG picture: 8-bit pixels without loss", (FRAMES,)),
    ):
        yield Component(
            kind="encoder",
            name=name,
            target=f"semcodec_plugins.image_codecs.pictures_encoder:{target}",
            spec="semcodec_plugins.image_codecs.spec:picture",
            summary=summary,
            params=params,
            positional="quality" if name != "png" else None,
            traits={"entropy": "none"} | ({"baseline": "full-offload"} if name == "png" else {}),
        )
    yield Component(
        kind="encoder",
        name="h264",
        target="semcodec_plugins.image_codecs.video_encoder:H264",
        spec="semcodec_plugins.image_codecs.spec:video",
        summary="a clip as H.264 video (x264)",
        params=(Param("crf", int, 28, "0 faithful to 51 small", (20, 28, 36, 44), open=True, low=0, high=51), FRAMES),
        positional="crf",
        license="GPL-2.0-or-later",
        traits={"entropy": "none", "tasks": ("video",)},
    )
    yield Component(
        kind="encoder",
        name="tensor8",
        target="semcodec_plugins.image_codecs.tensor8:Tensor8",
        spec="semcodec_plugins.image_codecs.spec:tensor8",
        summary="any features at 8 bits a value, uniform between each tensor's minimum and maximum",
        traits={"entropy": "required"},
    )
