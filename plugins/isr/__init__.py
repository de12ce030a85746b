"""ISR: a low-resolution image is sent, and the server makes it large again by super-resolution."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.isr"


def _scale(help: str) -> Param:  # noqa: A002 - Param's own word
    return Param("scale", int, 2, help, (2, 4), when="build")


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of ISR, and its Recoverers."""
    yield Component(
        kind="encoder",
        name="isr",
        target=f"{PACKAGE}.encoder:ISR",
        coding=f"{PACKAGE}.coding:ISRCoding",
        spec=f"{PACKAGE}.spec:encoder",
        summary="the image at a lower resolution, for super-resolution at the server (ISR)",
        params=(
            _scale("pixels that become one, along each side"),
            Param("coding", str, "webp", "how the small image is sent", ("webp", "jpeg", "avif", "png")),
            Param("quality", int, 75, "of webp, jpeg and avif", (30, 50, 75, 90), open=True, low=1, high=100),
            Param("slow", bool, False, "the small image at its coder's greatest effort"),
        ),
        positional="scale",
        traits={
            "entropy": "none",
            "recoverer": "sr:{scale}",
            "tasks": ("classification",),
            "device": f"{PACKAGE}.device:ISRDevice",
        },
        recipe=f"{PACKAGE}.recipe:recipe",
    )
    yield Component(
        kind="recoverer",
        name="sr",
        target=f"{PACKAGE}.super_resolution:SuperResolution",
        spec=f"{PACKAGE}.spec:enlarged",
        summary="makes an image larger by a light residual network with sub-pixel convolution",
        params=(_scale("how many times larger each side becomes"),),
        positional="scale",
        traits={"tasks": ("classification",), "fallback": "bicubic"},
        weights=tuple(f"{PACKAGE}:weights/sr{scale}-vit-nano-server.safetensors" for scale in (2, 4)),
    )
    yield Component(
        kind="recoverer",
        name="bicubic",
        target=f"{PACKAGE}.super_resolution:Bicubic",
        spec=f"{PACKAGE}.spec:enlarged",
        summary="makes an image larger by bicubic interpolation: no weights",
        params=(_scale("how many times larger each side becomes"),),
        positional="scale",
        traits={"tasks": ("classification",)},
    )
