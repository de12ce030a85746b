"""A-MOT: random patches in two rounds, the second only where the server is not sure after the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semcodec.coding import masks as mask_coding
from semcodec.coding.patch_coding import decode_patches, encode_patches, read_patches, write_patches
from semcodec.coding.patches import Bool, Rgb, split, usual_side, whole
from semcodec.coding.rounds import bits_of_doubt, read_reply, write_reply
from semcodec.errors import CorruptStream
from semcodec.interfaces import Analysis, Backbone, Encoder, Features, Latent, Partial, Sink, Source
from semcodec.specs import FeatureSpec, image_size
from semcodec.tensors import eight_bits, from_eight_bits

ROUNDS = ("first", "second")


class AdaptiveMOT(nn.Module, Encoder):
    """features: {"image": float32 (3, H, W) in [0, 1]}. side: of a patch, in pixels; 0 is the usual.
    server: answers the first round.

    Each round is a layer of the packet; one packet ends with the first where no more is asked for. What is restored
    is {"patches": (1, K, 3, p, p) in [0, 1], "index": (1, K) int64 in raster order, "grid": (1, h, w) bool}.
    """

    def __init__(self, features: FeatureSpec, *, side: int, server: Backbone) -> None:
        super().__init__()
        height, width = image_size(features)
        self.server = server
        self.side = side or usual_side(height, width)
        self.grid = height // self.side, width // self.side
        self.units = dict.fromkeys(("first", "keep"), self.grid[0] * self.grid[1])

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Tensor]) -> Tensor:
        """All alike, (B, N): what is drawn at random needs none."""
        return torch.ones(len(analysis.features["image"]), self.units[target])

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        latents = []
        for row, image in enumerate(eight_bits(features["image"])):
            chosen = [
                masks[t][row].cpu().numpy().reshape(self.grid) if t in masks else np.ones(self.grid, bool)
                for t in ("first", "keep")
            ]
            latent = Latent({}, {"coding": params["patches"]})
            self._add(latent, "first", image, chosen[0], params)
            more = chosen[1] & ~chosen[0]
            if more.any() and self._doubt(self.restore(latent)) >= params["sure"]:
                self._add(latent, "second", image, more, params)
            latent.kept = {"keep": sum(int(latent.symbols[r].sum()) for r in ROUNDS if r in latent.symbols)}
            latents.append(latent)
        return latents

    def _doubt(self, partial: Partial) -> float:
        """The server's min-entropy in bits (equation 13) on an image whose missing pixels have the others' mean."""
        partial = whole(partial)
        image, present = partial.features["image"], partial.present["image"]
        mean = image.sum((2, 3), keepdim=True) / present.sum((2, 3), keepdim=True)
        filled = {"image": torch.where(present > 0, image, mean)}
        logits = self.server.tail(self.server.head(filled, "input"), "input")
        return float(bits_of_doubt(logits)[0])

    def _add(self, latent: Latent, name: str, image: Rgb, mask: Bool, params: Mapping[str, Any]) -> None:
        latent.symbols[name] = mask
        # A picture is what is lossy here, so it belongs to encode, not to write.
        latent.side[name] = encode_patches(image, mask, self.side, params["patches"], params["quality"])

    def write(self, latent: Latent, sink: Sink) -> None:
        more = "second" in latent.symbols
        self._write(latent, "first", sink)
        write_reply(more, latent.symbols["first"].tobytes(), sink)
        if more:
            self._write(latent, "second", sink)

    def _write(self, latent: Latent, name: str, sink: Sink) -> None:
        mask = latent.symbols[name]
        mask_coding.write_mask(mask[None], sink, f"{name}.mask")
        write_patches(latent.side[name], mask, self.side, sink, _names(name))

    def read(self, source: Source) -> Latent:
        latent = Latent({}, {"coding": source.params["patches"]})
        self._read(latent, "first", source)
        if read_reply(latent.symbols["first"].tobytes(), source):
            self._read(latent, "second", source)
        return latent

    def _read(self, latent: Latent, name: str, source: Source) -> None:
        [mask] = mask_coding.read_mask((1, *self.grid), source, f"{name}.mask")
        taken = latent.symbols.get("first")
        if not mask.any() or (taken is not None and (mask & taken).any()):
            raise CorruptStream(f"the {name} round keeps no patch or one twice; the stream is damaged, get it again")
        latent.symbols[name] = mask
        latent.side[name] = read_patches(mask, self.side, latent.side["coding"], source, _names(name))

    def restore(self, latent: Latent) -> Partial:
        image = np.zeros((self.grid[0] * self.side, self.grid[1] * self.side, 3), np.uint8)
        kept = np.zeros(self.grid, bool)
        for name in ROUNDS:
            if name in latent.symbols:
                mask = latent.symbols[name]
                # Zero where another round has its patches.
                image += decode_patches(latent.side[name], mask, self.side, latent.side["coding"])
                kept |= mask
        features = {
            "patches": from_eight_bits(split(image, self.side)[kept])[None],
            "index": torch.from_numpy(np.flatnonzero(kept))[None],
            "grid": torch.from_numpy(kept)[None],
        }
        return Partial(features)

    def decoder_state(self) -> Mapping[str, Tensor]:
        """The server's model asks for more; it is not needed to decode."""
        return {}


def _names(round_: str) -> tuple[str, str]:
    return f"{round_}.pixels", f"{round_}.picture"
