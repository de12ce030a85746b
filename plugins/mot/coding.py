"""The Coding of A-MOT: one round of patches or two, each a layer of the packet; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.coding import masks
from semcodec.coding.patch_coding import read_patches, write_patches
from semcodec.coding.patches import Bool, patch_grid
from semcodec.coding.rounds import read_reply, write_reply
from semcodec.errors import CorruptStream
from semcodec.interfaces import Coding
from semcodec.specs import FeatureSpec
from semcodec.types import Latent, Sink, Source

ROUNDS = ("first", "second")


class AdaptiveMOTCoding(Coding):
    """A Latent has the symbols "first" and, of two rounds, "second", bool (h, w): the patches of each, which have none
    in common. Beside them are "coding", how patches are sent, and under the same names what ``encode_patches`` gives
    of each round.

    side: of a patch, in pixels; 0 is the usual.
    """

    def __init__(self, features: FeatureSpec, state: Mapping[str, Any], *, side: int, **params: Any) -> None:
        self.side, self.grid = patch_grid(features, side)

    def write(self, latent: Latent, sink: Sink) -> None:
        more = "second" in latent.symbols
        self._write(latent, "first", sink)
        write_reply(more, latent.symbols["first"].tobytes(), sink)
        if more:
            self._write(latent, "second", sink)

    def write_second(self, latent: Latent, sink: Sink) -> None:
        """The second round with its places, which the device has drawn."""
        self._write(latent, "second", sink)

    def read_second(self, first: Latent, asked: Bool | None, source: Source) -> Latent:
        """As ``TwoRounds.read_second``."""
        if asked is not None:
            raise CorruptStream("a second round of patches that the device chooses, and the server has")
        latent = Latent(dict(first.symbols), dict(first.side))
        self._read(latent, "second", source)
        return latent

    def _write(self, latent: Latent, name: str, sink: Sink) -> None:
        mask = latent.symbols[name]
        masks.write_mask(mask[None], sink, f"{name}.mask")
        write_patches(latent.side[name], mask, self.side, sink, _names(name))

    def read(self, source: Source) -> Latent:
        latent = Latent({}, {"coding": source.params["patches"]})
        self._read(latent, "first", source)
        if read_reply(latent.symbols["first"].tobytes(), source):
            self._read(latent, "second", source)
        return latent

    def _read(self, latent: Latent, name: str, source: Source) -> None:
        [mask] = masks.read_mask((1, *self.grid), source, f"{name}.mask")
        taken = latent.symbols.get("first")
        if not mask.any() or (taken is not None and (mask & taken).any()):
            raise CorruptStream(f"the {name} round keeps no patch or one twice; the stream is damaged, get it again")
        latent.symbols[name] = mask
        latent.side[name] = read_patches(mask, self.side, latent.side["coding"], source, _names(name))


def _names(round_: str) -> tuple[str, str]:
    return f"{round_}.pixels", f"{round_}.picture"
