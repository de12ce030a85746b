"""Image classifiers: any of timm's, and the embedded vision transformers of timm's form."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.timm_models"


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of this package's components."""
    for size, count in (("tiny", "5.7 M"), ("small", "22 M"), ("base", "87 M")):
        yield Component(
            kind="backbone",
            name=f"deit-{size}",
            target=f"{PACKAGE}.backbone:DeiT{size.capitalize()}",
            spec=f"{PACKAGE}.spec:deit_{size}",
            summary=f"DeiT-{size.capitalize()}, image ViT of 16x16 patches, {count} parameters",
            requires=("timm",),
            traits={"hub": f"timm/deit_{size}_patch16_224.fb_in1k", "classes": 1000, "edge": "deit-tiny"},
        )
    yield Component(
        kind="backbone",
        name="timm/*",
        target=f"{PACKAGE}.backbone:TimmBackbone",
        summary="any image classifier of timm by its name there, as in timm/resnet50",
        requires=("timm",),
        traits={
            "hub": f"{PACKAGE}.backbone:repository",
            "known": f"{PACKAGE}.names:check",
            "edge": "deit-tiny",
            "example": "test_vit",
            "task": "classification",
        },
    )
    yield Component(
        kind="backbone",
        name="timm-embed/*",
        target=f"{PACKAGE}.backbone:TimmEmbedding",
        summary="any image model of timm without its classifier, for retrieval, as in timm-embed/deit_tiny_patch16_224",
        requires=("timm",),
        traits={
            "hub": f"{PACKAGE}.backbone:repository",
            "known": f"{PACKAGE}.names:check",
            "example": "test_vit",
            "task": "retrieval",
        },
    )
    for size, summary in (("edge", "for the device"), ("server", "for the server")):
        yield Component(
            kind="backbone",
            name=f"vit-nano-{size}",
            target=f"{PACKAGE}.builtin:ViTNano{size.capitalize()}",
            spec=f"{PACKAGE}.spec:nano_{size}",
            summary=f"embedded image ViT of 8x8 patches of 96x96 pixels, {summary}",
            requires=("timm",),
            traits={"edge": "vit-nano-edge"},
            weights=(f"{PACKAGE}:weights/vit-nano-{size}.safetensors",),
            recipe=f"{PACKAGE}.recipe:recipe",
        )
