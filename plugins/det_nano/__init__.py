"""Embedded models for scenes of digits, small, of our own: a detector, and a classifier behind its head."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.det_nano"
BEHIND = {"shares": ("det-nano", ("stages.stem.", "stages.d2.", "stages.d3."))}
"""Traits of what answers behind the detector's head: its weights are not shipped again."""


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of this package's components."""
    yield Component(
        kind="backbone",
        name="det-nano",
        target=f"{PACKAGE}.nano:DetNano",
        spec=f"{PACKAGE}.spec:nano",
        summary="embedded detector of 96x96 pixels, without anchors, 0.4 M parameters",
        weights=(f"{PACKAGE}:weights/det-nano.safetensors",),
        recipe=f"{PACKAGE}.recipe:recipe",
    )
    yield Component(
        kind="backbone",
        name="cls-nano",
        target=f"{PACKAGE}.classifier:ClsNano",
        spec=f"{PACKAGE}.spec:classifier",
        summary="embedded classifier of 96x96 pixels behind det-nano's head: the main digit, 0.6 M parameters",
        traits=BEHIND,
        weights=(f"{PACKAGE}:weights/cls-nano.safetensors",),
        recipe=f"{PACKAGE}.classifier:recipe",
    )
    yield Component(
        kind="backbone",
        name="seg-nano",
        target=f"{PACKAGE}.segmenter:SegNano",
        spec=f"{PACKAGE}.spec:segmenter",
        summary="embedded model that segments 96x96 pixels behind det-nano's head, 0.4 M parameters",
        traits=BEHIND,
        weights=(f"{PACKAGE}:weights/seg-nano.safetensors",),
        recipe=f"{PACKAGE}.segmenter:recipe",
    )
    yield Component(
        kind="backbone",
        name="embed-nano",
        target=f"{PACKAGE}.embedder:EmbedNano",
        spec=f"{PACKAGE}.spec:embedder",
        summary="embedded model of embeddings of 96x96 pixels behind det-nano's head, 0.3 M parameters",
        traits=BEHIND,
        weights=(f"{PACKAGE}:weights/embed-nano.safetensors",),
        recipe=f"{PACKAGE}.embedder:recipe",
    )
    yield Component(
        kind="backbone",
        name="draw-nano",
        target=f"{PACKAGE}.drawer:DrawNano",
        spec=f"{PACKAGE}.spec:drawer",
        summary="embedded model that reconstructs 96x96 pixels behind det-nano's head, 0.2 M parameters",
        traits=BEHIND,
        weights=(f"{PACKAGE}:weights/draw-nano.safetensors",),
        recipe=f"{PACKAGE}.drawer:recipe",
    )
