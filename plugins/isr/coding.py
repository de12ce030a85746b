"""The Coding of ISR: one picture; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.interfaces import Coding
from semcodec.specs import FeatureSpec, image_size
from semcodec.types import Latent, Sink, Source


class ISRCoding(Coding):
    """A Latent has no symbols. Beside them are the bytes of the small image as a "picture" and "coding", its format.

    scale: pixels that become one, along each side.
    """

    def __init__(self, features: FeatureSpec, state: Mapping[str, Any], *, scale: int, **params: Any) -> None:
        height, width = image_size(features)
        self.pixels = (height // scale) * (width // scale)

    def write(self, latent: Latent, sink: Sink) -> None:
        sink.blob("picture", latent.side["picture"])

    def read(self, source: Source) -> Latent:
        # No format here spends more than twice the raw size, whatever the pixels.
        picture = source.blob("picture", 4096 + 6 * self.pixels)
        return Latent({}, {"picture": picture, "coding": source.params["coding"]})
