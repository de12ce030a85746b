"""Vision transformers for video, in the form of VideoMAE."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl


@hookimpl
def semcodec_components() -> Iterator[Component]:
    for size, side, summary in (
        ("nano", 64, "video ViT with a convolutional stem, 0.9 M parameters"),
        ("tiny", 224, "video ViT of DeiT-Tiny's size, 5.5 M parameters"),
        ("small", 224, "video ViT of VideoMAE-small's size, 22 M parameters"),
        ("base", 224, "video ViT of VideoMAE-base's size, 86 M parameters"),
    ):
        yield Component(
            kind="backbone",
            name=f"vit-{size}",
            target=f"semcodec_plugins.vit.video:ViT{size.capitalize()}",
            spec=f"semcodec_plugins.vit.spec:{size}",
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
            weights=("semcodec_plugins.vit:weights/vit-nano.safetensors",) if size == "nano" else (),
            recipe="semcodec_plugins.vit.recipe:recipe",
        )
