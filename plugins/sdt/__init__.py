"""SDT: a poor picture first, then the regions that the server asks for (Du et al., SIGCOMM 2020, as DDS)."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.coding.patch_params import UNITS
from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.sdt"
COUNTS = (12, 25, 49, 74, 98, 147)
QUALITIES = (10, 30, 50, 75, 90)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of SDT."""
    yield Component(
        kind="encoder",
        name="sdt",
        target=f"{PACKAGE}.encoder:SDT",
        coding=f"{PACKAGE}.coding:SDTCoding",
        spec=f"{PACKAGE}.spec:encoder",
        summary="a low-resolution image first, then the patches that the server asks for (SDT)",
        params=(
            Param("keep", int, 49, "patches that the server may ask for", COUNTS, open=True, low=1),
            Param(
                "sure",
                float,
                0.8,
                "least -log2 of the server's largest probability, in bits, to ask for more",
                (0.1, 0.3, 0.8, 1.5),
                open=True,
                low=0,
            ),
            Param("patches", str, "raw", "how patches are sent", ("raw", "jpeg", "webp", "avif")),
            Param("detail", int, 75, "quality of patches sent as jpeg, webp or avif", QUALITIES, open=True, low=1,
                  high=100),
            Param("scale", int, 2, "pixels of the first image that become one, along each side", (1, 2, 4, 8),
                  when="build"),
            Param("coding", str, "webp", "how the first image is sent", ("webp", "jpeg", "avif"), when="build"),
            Param("quality", int, 50, "of the first image", QUALITIES, when="build", open=True, low=1, high=100),
            Param("server", str, None, "ViT that asks; usually the pipeline's own", when="build"),
        ),
        traits={
            "entropy": "mixed",
            "targets": ("keep",),
            "units": UNITS,
            "models": ("server",),
            "needs_torch": "it asks the server's model for patches while it encodes",
            "tasks": ("classification",),
        },
    )  # fmt: skip
