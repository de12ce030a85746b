"""MOT and A-MOT: random patches, rebuilt at the server by a masked autoencoder (Liu et al., 2023 and 2024)."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.coding.patch_params import CODING, SIDE, UNITS
from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.mot"
COUNTS = (25, 49, 74, 98, 123, 147)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of MOT and A-MOT, and their Recoverers."""
    yield Component(
        kind="encoder",
        name="mot",
        target="semcodec.coding.patch_encoder:Patches",
        coding="semcodec.coding.patch_coding:PatchesCoding",
        spec=f"{PACKAGE}.spec:patches",
        summary="random patches, for a masked autoencoder at the server (MOT)",
        params=(Param("keep", int, 98, "patches sent", COUNTS, open=True, low=1), *CODING, SIDE),
        positional="keep",
        traits={
            "entropy": "mixed",
            "targets": ("keep",),
            "selectors": ("random",),
            "units": UNITS,
            "recoverer": "mae",
            "tasks": ("classification",),
            "device": "semcodec.coding.patch_encoder:Patches",
        },
        recipe=f"{PACKAGE}.recipe:recipe",
    )
    yield Component(
        kind="encoder",
        name="a-mot",
        target=f"{PACKAGE}.encoder:AdaptiveMOT",
        coding=f"{PACKAGE}.coding:AdaptiveMOTCoding",
        spec=f"{PACKAGE}.spec:adaptive",
        summary="random patches, and more of them in a second round where the server is unsure (A-MOT)",
        params=(
            Param("first", int, 49, "patches sent in the first round", COUNTS, open=True, low=1),
            Param("keep", int, 147, "patches sent in both rounds together", COUNTS, open=True, low=1),
            Param(
                "sure",
                float,
                0.8,
                "least -log2 of the server's largest probability, in bits, for a second round",
                (0.1, 0.3, 0.8, 1.5),
                open=True,
                low=0,
            ),
            *CODING,
            SIDE,
            Param("server", str, None, "backbone that answers the first round; usually the pipeline's", when="build"),
        ),
        traits={
            "entropy": "mixed",
            "targets": ("first", "keep"),
            "selectors": ("random@first", "random@keep"),
            "units": UNITS,
            "models": ("server",),
            "needs_torch": "it asks the server's model for more patches while it encodes",
            "recoverer": "mae",
            "tasks": ("classification",),
        },
        recipe=f"{PACKAGE}.recipe:recipe",
    )
    yield Component(
        kind="recoverer",
        name="mae",
        target=f"{PACKAGE}.autoencoder:MaskedAutoencoder",
        spec=f"{PACKAGE}.spec:rebuilt",
        summary="rebuilds the missing patches of an image by a masked autoencoder (MAE)",
        params=(
            # Up to the size of MAE-Large, since a stream's header may name them.
            Param("dim", int, 96, "width of its encoder, a multiple of 32", (96, 192), when="build", open=True, low=32,
                  high=1024),
            Param("depth", int, 4, "blocks of its encoder", (4, 6), when="build", open=True, low=1, high=24),
        ),
        traits={"tasks": ("classification",), "fallback": "smooth-fill"},
        weights=(f"{PACKAGE}:weights/mae-vit-nano-server.safetensors",),
    )  # fmt: skip
