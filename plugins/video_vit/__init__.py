"""Vision transformers for video, in the form of VideoMAE."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of the video ViTs."""
    for size, side, hub, summary in (
        ("nano", 64, None, "video ViT with a convolutional stem, 1 M parameters"),
        ("tiny", 224, None, "video ViT of DeiT-Tiny's size, 5.6 M parameters"),
        (
            "small",
            224,
            "MCG-NJU/videomae-small-finetuned-kinetics",
            "video ViT as VideoMAE-small, 22 M parameters",
        ),
        ("base", 224, "MCG-NJU/videomae-base-finetuned-kinetics", "video ViT as VideoMAE-base, 86 M parameters"),
    ):
        yield Component(
            kind="backbone",
            name=f"vit-{size}",
            target=f"semcodec_plugins.video_vit.video:ViT{size.capitalize()}",
            spec=f"semcodec_plugins.video_vit.spec:{size}",
            summary=summary,
            params=(
                Param(
                    "side",
                    int,
                    side,
                    "height and width of the frames in pixels, a multiple of 16",
                    values=(64, 96, 112, 128, 160, 224),
                    when="build",
                    open=True,
                    low=32,
                    high=512,
                ),
            ),
            positional="side",
            traits={"hub": hub, "classes": 400} if hub else {},
            weights=("semcodec_plugins.video_vit:weights/vit-nano.safetensors",) if size == "nano" else (),
            recipe="semcodec_plugins.video_vit.recipe:recipe",
        )
