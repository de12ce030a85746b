"""A-MOT: random patches in two rounds, the second only where the server is not sure after the first.

The server's end is ``DoubtingServer``. To write a whole packet the Encoder runs it itself, in the device's process;
where both ends are apart ``semcodec.coding.rounds`` says how they talk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from semcodec.coding.patch_coding import decode_patches, encode_patches
from semcodec.coding.patch_encoder import restore_patches
from semcodec.coding.patches import Bool, Rgb
from semcodec.coding.rounds import TwoRounds
from semcodec.interfaces import Analysis, Backbone, Encoder, Features, Latent, Partial
from semcodec.specs import FeatureSpec
from semcodec.tensors import as_array, eight_bits
from semcodec.types import Sink, Source
from semcodec_plugins.mot.coding import ROUNDS, AdaptiveMOTCoding
from semcodec_plugins.mot.server import DoubtingServer


class AdaptiveMOT(nn.Module, Encoder, TwoRounds):
    """Random patches, and more of them where the server doubts.

    features: {"image": float32 (3, H, W) in [0, 1]}. side: of a patch, in pixels; 0 is the usual.
    server: answers the first round, here in the process.

    Each round is a layer of the packet; one packet ends with the first where no more is asked for. What is restored
    is {"patches": (1, K, 3, p, p) in [0, 1], "index": (1, K) int64 in raster order, "grid": (1, h, w) bool}.
    """

    coding: AdaptiveMOTCoding

    def __init__(self, features: FeatureSpec, *, side: int, server: Backbone) -> None:
        super().__init__()
        self.coding = coding = AdaptiveMOTCoding(features, {}, side=side)
        self.server = server
        self.side, self.grid = coding.side, coding.grid
        self.units = dict.fromkeys(("first", "keep"), self.grid[0] * self.grid[1])

    @property
    def second_round(self) -> DoubtingServer:
        return DoubtingServer(self.server, self.restore)

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Tensor]) -> Tensor:
        """All alike, (B, N): what is drawn at random needs none."""
        return analysis.features["image"].new_ones(len(analysis.features["image"]), self.units[target])

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        latents = []
        for row, first in enumerate(self.begin(features, masks, params)):
            more = self.offered(masks, row)
            if more.any():
                doubt = float(self.second_round.look([first]).doubt[0])
                more = self.second_round.ask(more, doubt, params["sure"])
            latents.append(self.finish({"image": features["image"][row : row + 1]}, first, more, params))
        return latents

    def begin(self, features: Features, masks: Mapping[str, Tensor], params: Mapping[str, Any]) -> list[Latent]:
        latents = []
        for row, image in enumerate(eight_bits(features["image"])):
            latent = Latent({}, {"coding": params["patches"]})
            self._add(latent, "first", image, self._chosen(masks, "first", row), params)
            latents.append(latent)
        return latents

    def offered(self, masks: Mapping[str, Tensor], row: int) -> Bool:
        more: Bool = self._chosen(masks, "keep", row) & ~self._chosen(masks, "first", row)
        return more

    def _chosen(self, masks: Mapping[str, Tensor], target: str, row: int) -> Bool:
        return as_array(masks[target][row]).reshape(self.grid) if target in masks else np.ones(self.grid, bool)

    def finish(self, features: Features, first: Latent, asked: Bool, params: Mapping[str, Any]) -> Latent:
        latent = Latent(dict(first.symbols), dict(first.side))
        if asked.any():
            [image] = eight_bits(features["image"])
            self._add(latent, "second", image, asked, params)
        latent.kept = {"keep": sum(int(latent.symbols[r].sum()) for r in ROUNDS if r in latent.symbols)}
        return latent

    def _add(self, latent: Latent, name: str, image: Rgb, mask: Bool, params: Mapping[str, Any]) -> None:
        latent.symbols[name] = mask
        # A picture is what is lossy here, so it belongs to encode, not to write.
        latent.side[name] = encode_patches(image, mask, self.side, params["patches"], params["quality"])

    def write_second(self, latent: Latent, sink: Sink) -> None:
        self.coding.write_second(latent, sink)

    def read_second(self, first: Latent, asked: Bool | None, source: Source) -> Latent:
        return self.coding.read_second(first, asked, source)

    def restore(self, latent: Latent) -> Partial:
        image = np.zeros((self.grid[0] * self.side, self.grid[1] * self.side, 3), np.uint8)
        kept = np.zeros(self.grid, bool)
        for name in ROUNDS:
            if name in latent.symbols:
                mask = latent.symbols[name]
                # Zero where another round has its patches.
                image += decode_patches(latent.side[name], mask, self.side, latent.side["coding"])
                kept |= mask
        return restore_patches(image, kept, self.side)

    def device_state(self) -> Sequence[str]:
        """The server's model, which runs in the process."""
        return ("server.",)

    def server_state(self) -> Sequence[str]:
        """Nothing: the model that asks for more is not needed to decode."""
        return ()

    def decoder_state(self) -> Mapping[str, Tensor]:
        """Nothing, as ``server_state`` says."""
        return {}
