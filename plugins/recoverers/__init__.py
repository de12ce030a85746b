"""Recoverers without weights, for the pixels of any method."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component
from semcodec.hookspecs import hookimpl

PACKAGE = "semcodec_plugins.recoverers"


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of this package's components."""
    for name, summary in (
        ("mean", "fills missing pixels with the mean colour of those received, image by image"),
        ("smooth", "fills missing pixels smoothly from those received around them"),
    ):
        yield Component(
            kind="recoverer",
            name=f"{name}-fill",
            target=f"{PACKAGE}.fill:{name.capitalize()}Fill",
            spec=f"{PACKAGE}.spec:filled",
            summary=summary,
            traits={"tasks": ("classification", "video")},
        )
