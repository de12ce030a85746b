"""The Coding of SDT: the first round, what the server says to it, and the patches that it asked for; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semcodec.coding import masks
from semcodec.coding.patch_coding import read_patches, write_patches
from semcodec.coding.patches import Bool, patch_grid
from semcodec.coding.rounds import read_reply, write_reply
from semcodec.errors import CorruptStream, PluginError
from semcodec.interfaces import Coding
from semcodec.specs import BackboneSpec, FeatureSpec, image_size
from semcodec.types import Latent, Sink, Source

SECOND = "second", "second"
"""Name of the chunk, whatever it holds."""


class SDTCoding(Coding):
    """A Latent has the symbols "asked", bool (h, w), of the patches that the server asked for. Beside them are
    "first", the bytes of the first picture, "coding", how patches are sent, and, where any were asked for, "second",
    which is what ``encode_patches`` gives of them. One without "second" is a first round alone.

    server: the BackboneSpec of the model that asks. Raises PluginError where that says no patch.
    """

    def __init__(
        self, features: FeatureSpec, state: Mapping[str, Any], *, server: BackboneSpec | None, **params: Any
    ) -> None:
        if server is None or server.patch is None:
            raise PluginError("the server's model is to attend to patches and does not set spec.patch")
        self.size = image_size(features)
        self.side, self.grid = patch_grid(features, server.patch)

    def write(self, latent: Latent, sink: Sink) -> None:
        mask, first = latent.symbols["asked"], latent.side["first"]
        sink.blob("first", first)
        write_reply(bool(mask.any()), first, sink)
        if mask.any():
            masks.write_mask(mask[None], sink, "asked")  # what the server sends to the device
            write_patches(latent.side["second"], mask, self.side, sink, SECOND)

    def read(self, source: Source) -> Latent:
        # No format here spends more than twice the raw size, whatever the pixels.
        first = source.blob("first", 4096 + 6 * self.size[0] * self.size[1])
        latent = self.first_round(first, source.params["patches"])
        if not read_reply(first, source):
            return latent
        [mask] = masks.read_mask((1, *self.grid), source, "asked")
        if not mask.any():
            raise CorruptStream("the server asks for more and for no patch; the stream is damaged, get it again")
        latent.symbols["asked"] = mask
        latent.side["second"] = read_patches(mask, self.side, latent.side["coding"], source, SECOND)
        return latent

    def write_second(self, latent: Latent, sink: Sink) -> None:
        """The patches alone, since the server knows which they are."""
        write_patches(latent.side["second"], latent.symbols["asked"], self.side, sink, SECOND)

    def read_second(self, first: Latent, asked: Bool | None, source: Source) -> Latent:
        """As ``TwoRounds.read_second``."""
        if asked is None:
            raise CorruptStream("a second round of patches that the server did not choose")
        latent = Latent({**first.symbols, "asked": asked}, dict(first.side))
        latent.side["second"] = read_patches(asked, self.side, latent.side["coding"], source, SECOND)
        return latent

    def first_round(self, first: bytes, coding: str) -> Latent:
        """The Latent of a first round alone. coding: how the patches of a second would be sent."""
        return Latent({"asked": np.zeros(self.grid, bool)}, {"first": first, "coding": coding})
