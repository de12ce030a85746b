"""The SDT encoder: device and server in turn, as one packet of two layers.

The server's end is ``AttentiveServer``. To write a whole packet the Encoder runs it itself, in the device's process;
where both ends are apart ``semcodec.coding.rounds`` says how they talk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from semcodec.coding import pictures
from semcodec.coding.patch_coding import decode_patches, encode_patches
from semcodec.coding.patches import Bool, spread
from semcodec.coding.rounds import TwoRounds
from semcodec.errors import CorruptStream
from semcodec.interfaces import Analysis, Backbone, Encoder, Features, Latent, Partial
from semcodec.panels import Panel, usual
from semcodec.specs import FeatureSpec
from semcodec.tensors import as_array, eight_bits, from_eight_bits
from semcodec.types import Sink, Source
from semcodec_plugins.sdt.coding import SDTCoding
from semcodec_plugins.sdt.server import AttentiveServer


class SDT(nn.Module, Encoder, TwoRounds):
    """A poor image, and the patches of it that the server asks for.

    features: {"image": float32 (3, H, W) in [0, 1]}. server: a ViT, which answers the first image and asks by its
    class token's attention, here in the process. scale, coding, quality: of the first image; build parameters, as
    scores depend on them.
    """

    coding: SDTCoding

    def __init__(self, features: FeatureSpec, *, server: Backbone, scale: int, coding: str, quality: int) -> None:
        super().__init__()
        self.coding = SDTCoding(features, {}, server=server.spec)
        self.server, self.scale, self.format, self.quality = server, scale, coding, quality
        self.size, self.side, self.grid = self.coding.size, self.coding.side, self.coding.grid
        self.units = {"keep": self.grid[0] * self.grid[1]}

    @property
    def second_round(self) -> AttentiveServer:
        return AttentiveServer(self.server, self.restore)

    def analyse(self, features: Features) -> Analysis:
        """What the server makes of the first round: its attention (B, N), and its doubt in bits (B,)."""
        # How patches of the second round would be sent does not matter to the first.
        first = [self.coding.first_round(one, "raw") for one in self._first(features["image"])]
        look = self.second_round.look(first)
        assert look.scores is not None
        return Analysis(features, {"keep": look.scores, "doubt": look.doubt})

    def _first(self, image: Tensor) -> list[bytes]:
        """The first round of each image."""
        eight_bits(image)  # refuses NaN and infinity, which the clamp below would hide
        size = self.size[0] // self.scale, self.size[1] // self.scale
        # One at a time: a sum in another order for another batch size may round to another byte.
        small = [interpolate(one[None], size=size, mode="bicubic", antialias=True) for one in image]
        return [pictures.encode_picture(eight_bits(one)[0], self.format, self.quality) for one in small]

    def _enlarge(self, first: bytes) -> Tensor:
        """What the server has of the first round, (1, 3, H, W) in [0, 1]."""
        height, width = (n // self.scale for n in self.size)
        rgb = pictures.decode_picture(first, height * width, (self.format,))
        if rgb.shape[:2] != (height, width):
            raise CorruptStream(f"a picture of {rgb.shape[1]}x{rgb.shape[0]} where {width}x{height} is due")
        small = from_eight_bits(rgb)[None]
        return interpolate(small, size=self.size, mode="bicubic").clamp(0, 1)

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        doubt = analysis.scores["doubt"].tolist()
        latents = []
        for row, first in enumerate(self.begin(features, masks, params)):
            mask = as_array(masks["keep"][row]).reshape(self.grid) if "keep" in masks else np.ones(self.grid, bool)
            mask = self.second_round.ask(mask, doubt[row], params["sure"])
            latents.append(self.finish({"image": features["image"][row : row + 1]}, first, mask, params))
        return latents

    def begin(self, features: Features, masks: Mapping[str, Tensor], params: Mapping[str, Any]) -> list[Latent]:
        return [self.coding.first_round(first, params["patches"]) for first in self._first(features["image"])]

    def offered(self, masks: Mapping[str, Tensor], row: int) -> None:
        return None

    def finish(self, features: Features, first: Latent, asked: Bool, params: Mapping[str, Any]) -> Latent:
        latent = Latent({"asked": asked}, dict(first.side), {"keep": int(asked.sum())})
        if asked.any():
            [image] = eight_bits(features["image"])
            latent.side["second"] = encode_patches(image, asked, self.side, params["patches"], params["detail"])
        return latent

    def write_second(self, latent: Latent, sink: Sink) -> None:
        self.coding.write_second(latent, sink)

    def read_second(self, first: Latent, asked: Bool | None, source: Source) -> Latent:
        return self.coding.read_second(first, asked, source)

    def restore(self, latent: Latent) -> Partial:
        """{"image": (1, 3, H, W)}: the first round enlarged, the second pasted over it."""
        image, mask = self._enlarge(latent.side["first"]), latent.symbols["asked"]
        if mask.any():
            there = torch.from_numpy(spread(mask, self.side))
            detail = decode_patches(latent.side["second"], mask, self.side, latent.side["coding"])
            image = torch.where(there, from_eight_bits(detail)[None], image)
        return Partial({"image": image})

    def device_state(self) -> Sequence[str]:
        """The server's model, which runs in the process."""
        return ("server.",)

    def server_state(self) -> Sequence[str]:
        """Nothing: the model that asks is not needed to decode what came."""
        return ()

    def decoder_state(self) -> Mapping[str, Tensor]:
        """Nothing, as ``server_state`` says."""
        return {}

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """The image, the first round under the server's attention to it, and what the server has in the end."""
        source, received = usual(features, partial)
        [first] = self._first(features["image"])
        scores = as_array(analysis.scores["keep"][0].view(self.grid))
        [poor] = eight_bits(self._enlarge(first))
        doubt = float(analysis.scores["doubt"][0])
        return [source, Panel(f"first round, server in doubt by {doubt:.2f} bits", poor, scores), received]
