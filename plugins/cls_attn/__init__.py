"""cls-attn: a light ViT on the device answers itself, or sends the patches that its class token attends to."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.cls_attn"
SWEEP = (25, 49, 74, 98, 123, 147, 172)
CODING = (
    Param("keep", int, 98, "patch budget of selectors that obey one: patches kept", SWEEP, open=True, low=1),
    Param("patches", str, "raw", "how kept patches are sent", ("raw", "jpeg", "webp", "avif")),
    Param("quality", int, 50, "of jpeg, webp and avif", (10, 20, 30, 50, 75, 90), open=True, low=1, high=100),
)
TRAITS = {
    "entropy": "mixed",
    "targets": ("keep",),
    "units": {"keep": ("patch", "patches")},
    "tasks": ("classification",),
}


@hookimpl
def semcodec_components() -> Iterator[Component]:
    yield Component(
        kind="encoder",
        name="cls-attn",
        target=f"{PACKAGE}.encoder:ClsAttn",
        spec=f"{PACKAGE}.spec:cls_attn",
        summary="the patches that the class token of a light ViT on the device attends to",
        params=(
            *CODING,
            Param("edge", str, None, "the device's ViT, as in edge=deit-tiny; the server's usual one", when="build"),
            Param("scores", str, "mean", "attention of the last block, or of all rolled out", ("mean", "rollout"),
                  when="build"),
        ),
        traits={**TRAITS, "models": ("edge",), "predicts": True, "selectors": ("attention-sum",)},
    )  # fmt: skip
    yield Component(
        kind="encoder",
        name="patches",
        target="semcodec.patch_encoder:Patches",
        spec=f"{PACKAGE}.spec:patches",
        summary="some patches of the image, drawn at random: no model on the device",
        params=(
            *CODING,
            Param(
                "side",
                int,
                0,
                "of a patch; 0: 16 pixels, 8 in small images",
                (8, 14, 16, 32),
                "build",
                low=0,
                open=True,
            ),
        ),
        traits={**TRAITS, "selectors": ("random",)},
    )
