"""Learned image codecs of CompressAI as encoders of pixels, before any backbone."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.learned"


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The family ``learned/*``, by CompressAI's names."""
    yield Component(
        kind="encoder",
        name="learned/*",
        target=f"{PACKAGE}.encoder:Learned",
        spec=f"{PACKAGE}.spec:encoder",
        coding=f"{PACKAGE}.coding:LearnedCoding",
        summary="the input by a learned image codec of CompressAI, as learned/bmshj2018-hyperprior",
        params=(
            Param(
                "quality",
                int,
                3,
                "which of CompressAI's rates, 1 small to 6 or 8 faithful: selects weights",
                (1, 2, 3, 4, 5, 6),
                when="build",
                open=True,
                low=1,
                high=8,
            ),
            Param("metric", str, "mse", "what published weights were trained for", ("mse", "ms-ssim"), when="build"),
            Param(
                "size",
                str,
                None,
                "channels N-M of transforms and latent, for models of one's own; else those of the quality",
                when="build",
            ),
        ),
        positional="quality",
        requires=("compressai",),
        extra="learned",
        license="BSD-3-Clause-Clear",
        traits={
            "entropy": "mixed",
            "example": "bmshj2018-factorized",
            "hub": f"{PACKAGE}.spec:published",
            "needs_torch": "its networks are CompressAI's, which has no runtime of its own",
        },
        recipe=f"{PACKAGE}.recipe:recipe",
    )
