"""cls-attn: a light ViT on the device answers itself, or sends the patches that its class token attends to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from semcodec.coding.patch_params import CODING, SIDE, UNITS
from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.cls_attn"
SWEEP = (25, 49, 74, 98, 123, 147, 172)
KEEP = Param("keep", int, 98, "patch budget of selectors that obey one: patches kept", SWEEP, open=True, low=1)
BEST = {"patches": "webp", "quality": 40}
"""How ``cls-attn`` sends patches: the best trade that was measured (docs/results). The paper sends them raw."""
TRAITS = {
    "entropy": "mixed",
    "targets": ("keep",),
    "units": UNITS,
    "tasks": ("classification",),
}


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of cls-attn and patches."""
    yield Component(
        kind="encoder",
        name="cls-attn",
        target=f"{PACKAGE}.encoder:ClsAttn",
        coding=f"{PACKAGE}.coding:ClsAttnCoding",
        spec=f"{PACKAGE}.spec:cls_attn",
        summary="the patches that the class token of a light ViT on the device attends to",
        params=(
            KEEP,
            *(replace(param, default=BEST[param.name], earlier={1: param.default}) for param in CODING),
            Param("edge", str, None, "the device's ViT, as in edge=deit-tiny; the server's usual one", when="build"),
            Param("scores", str, "rollout", "attention of all blocks rolled out, or mean: of the last",
                  ("mean", "rollout"), when="build", earlier={1: "mean"}),
        ),
        stream_version=2,
        reads=(1, 2),
        traits={
            **TRAITS,
            "models": ("edge",),
            "predicts": True,
            "selectors": ("attention-sum:0.87",),
            "earlier_selectors": {1: ("attention-sum",)},
            "device": f"{PACKAGE}.device:ClsAttnDevice",
        },
    )  # fmt: skip
    yield Component(
        kind="encoder",
        name="patches",
        target="semcodec.coding.patch_encoder:Patches",
        coding="semcodec.coding.patch_coding:PatchesCoding",
        spec=f"{PACKAGE}.spec:patches",
        summary="some patches of the image, drawn at random: no model on the device",
        params=(
            KEEP,
            *CODING,
            SIDE,
        ),
        traits={**TRAITS, "selectors": ("random",), "device": "semcodec.coding.patch_encoder:Patches"},
    )
