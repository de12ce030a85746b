"""What DeepISC sends of frames once they are chosen; numpy, so the same with torch and without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from semcodec.tensors import as_array
from semcodec.types import Latent
from semcodec_plugins.deepisc import residual
from semcodec_plugins.deepisc.coding import DeepISCCoding
from semcodec_plugins.deepisc.spec import Shapes

UInt8 = npt.NDArray[np.uint8]


class Networks(Protocol):
    """What has the networks, with torch or without."""

    shapes: Shapes

    @property
    def coding(self) -> DeepISCCoding:
        """Whose masks say where the residual is sent."""

    def describe(self, frames: UInt8) -> tuple[npt.NDArray[np.int32], UInt8]:
        """Frames (k, H, W, 3) to the latent's symbols (LATENT, k, h, w) and classes (k, h', w')."""

    def synthesise(self, symbols: npt.NDArray[np.int32], classes: UInt8) -> UInt8:
        """Frames (k, H, W, 3) of what ``describe`` gives."""


def latents_of(networks: Networks, clips: UInt8, masks: Mapping[str, Any], params: Mapping[str, Any]) -> list[Latent]:
    """A Latent of each of the clips (B, T, H, W, 3) or images (B, H, W, 3). masks: by target, tensors or arrays."""
    found = networks.shapes
    latents = []
    for row, clip in enumerate(clips.reshape(-1, found.total, found.height, found.width, 3)):
        kept = as_array(masks["frames"][row]) if "frames" in masks else np.ones(found.total, bool)
        frames = np.ascontiguousarray(clip[kept])
        symbols, classes = networks.describe(frames)
        latent = Latent({"kept": kept, "latent": symbols, "segments": classes}, dict(params))
        if found.name != "frames":
            del latent.symbols["kept"]
        mask = networks.coding.mask(kept, params["pixels"])
        made = networks.synthesise(symbols, classes)
        latent.symbols["residual"] = residual.quantise(frames, made, mask, params["step"])
        latents.append(latent)
    return latents
