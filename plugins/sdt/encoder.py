"""The SDT encoder: device and server in turn, as one packet of two layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from semcodec.coding import masks as mask_coding
from semcodec.coding import pictures
from semcodec.coding.patch_coding import decode_patches, encode_patches, read_patches, write_patches
from semcodec.coding.patches import spread
from semcodec.coding.rounds import bits_of_doubt, read_reply, write_reply
from semcodec.errors import CorruptStream
from semcodec.interfaces import Analysis, Backbone, Encoder, Features, Latent, Partial, Sink, Source
from semcodec.panels import Panel, usual
from semcodec.specs import FeatureSpec, image_size
from semcodec.tensors import eight_bits, from_eight_bits

SECOND = "second", "second"
"""Name of the chunk, whatever it holds."""


class SDT(nn.Module, Encoder):
    """features: {"image": float32 (3, H, W) in [0, 1]}. server: a ViT, which answers the first image and asks by its

    class token's attention. scale, coding, quality: of the first image; build parameters, as scores depend on them.
    """

    def __init__(self, features: FeatureSpec, *, server: Backbone, scale: int, coding: str, quality: int) -> None:
        super().__init__()
        assert server.spec is not None and server.spec.patch is not None  # the spec function refuses others
        self.server, self.scale, self.coding, self.quality = server, scale, coding, quality
        self.size, self.side = image_size(features), server.spec.patch
        self.grid = self.size[0] // self.side, self.size[1] // self.side
        self.units = {"keep": self.grid[0] * self.grid[1]}

    def analyse(self, features: Features) -> Analysis:
        """What the server makes of the first round: its attention (B, N), and its doubt in bits (B,)."""
        poor = torch.cat([self._enlarged(first) for first in self._first(features["image"])])
        logits, attention = self.server.attend({"image": poor})
        return Analysis(features, {"keep": attention, "doubt": bits_of_doubt(logits)})

    def _first(self, image: Tensor) -> list[bytes]:
        """The first round of each image."""
        eight_bits(image)  # refuses NaN and infinity, which the clamp below would hide
        size = self.size[0] // self.scale, self.size[1] // self.scale
        # One at a time: a sum in another order for another batch size may round to another byte.
        small = [interpolate(one[None], size=size, mode="bicubic", antialias=True) for one in image]
        shrunk = [eight_bits(one)[0] for one in small]
        return [pictures.encode_picture(one, self.coding, self.quality) for one in shrunk]

    def _enlarged(self, first: bytes) -> Tensor:
        """What the server has of the first round, (1, 3, H, W) in [0, 1]."""
        height, width = (n // self.scale for n in self.size)
        rgb = pictures.decode_picture(first, height * width, (self.coding,))
        if rgb.shape[:2] != (height, width):
            raise CorruptStream(f"a picture of {rgb.shape[1]}x{rgb.shape[0]} where {width}x{height} is due")
        small = from_eight_bits(rgb)[None]
        return interpolate(small, size=self.size, mode="bicubic").clamp(0, 1)

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        images = eight_bits(features["image"])
        asks = (analysis.scores["doubt"] >= params["sure"]).tolist()
        latents = []
        for row, first in enumerate(self._first(features["image"])):
            mask = masks["keep"][row].cpu().numpy().reshape(self.grid) if "keep" in masks else np.ones(self.grid, bool)
            mask = mask & asks[row]
            latent = Latent({"asked": mask}, {"first": first, "coding": params["patches"]}, {"keep": int(mask.sum())})
            if mask.any():
                sent = encode_patches(images[row], mask, self.side, params["patches"], params["detail"])
                latent.side["second"] = sent
            latents.append(latent)
        return latents

    def write(self, latent: Latent, sink: Sink) -> None:
        mask, first = latent.symbols["asked"], latent.side["first"]
        sink.blob("first", first)
        write_reply(bool(mask.any()), first, sink)
        if mask.any():
            mask_coding.write_mask(mask[None], sink, "asked")  # what the server sends to the device
            write_patches(latent.side["second"], mask, self.side, sink, SECOND)

    def read(self, source: Source) -> Latent:
        # No format here spends more than twice the raw size, whatever the pixels.
        first = source.blob("first", 4096 + 6 * self.size[0] * self.size[1])
        latent = Latent({"asked": np.zeros(self.grid, bool)}, {"first": first, "coding": source.params["patches"]})
        if not read_reply(first, source):
            return latent
        [mask] = mask_coding.read_mask((1, *self.grid), source, "asked")
        if not mask.any():
            raise CorruptStream("the server asks for more and for no patch; the stream is damaged, get it again")
        latent.symbols["asked"] = mask
        latent.side["second"] = read_patches(mask, self.side, latent.side["coding"], source, SECOND)
        return latent

    def restore(self, latent: Latent) -> Partial:
        """{"image": (1, 3, H, W)}: the first round enlarged, the second pasted over it."""
        image, mask = self._enlarged(latent.side["first"]), latent.symbols["asked"]
        if mask.any():
            there = torch.from_numpy(spread(mask, self.side))
            detail = decode_patches(latent.side["second"], mask, self.side, latent.side["coding"])
            image = torch.where(there, from_eight_bits(detail)[None], image)
        return Partial({"image": image})

    def decoder_state(self) -> Mapping[str, Tensor]:
        """The server's model asks; it is not needed to decode what came."""
        return {}

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """The image, the first round under the server's attention to it, and what the server has in the end."""
        source, received = usual(features, partial)
        [first] = self._first(features["image"])
        scores = analysis.scores["keep"][0].view(self.grid).numpy()
        [poor] = eight_bits(self._enlarged(first))
        doubt = float(analysis.scores["doubt"][0])
        return [source, Panel(f"first round, server in doubt by {doubt:.2f} bits", poor, scores), received]
