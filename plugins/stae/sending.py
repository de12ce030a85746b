"""What STAE sends of clips once frames and pixels are chosen; numpy, so the same with torch and without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.coding import pictures
from semcodec.coding.video_params import CODECS, rate_factor
from semcodec.tensors import as_array, eight_bits
from semcodec.types import Latent
from semcodec_plugins.stae.coding import blob_of

UInt8 = npt.NDArray[np.uint8]


def latents_of(clips: Any, masks: Mapping[str, Any], params: Mapping[str, Any]) -> list[Latent]:
    """A Latent of each of the clips (B, T, 3, H, W) in [0, 1], tensors or arrays, as are the masks by target."""
    frames8 = eight_bits(clips)
    latents = []
    for row, clip in enumerate(frames8):
        kept = as_array(masks["frames"][row]) if "frames" in masks else np.ones(len(clip), bool)
        frames = clip[kept]
        mask = np.ones(frames.shape[:3], bool)
        if "pixels" in masks:
            mask = as_array(masks["pixels"][row, : len(frames)]).reshape(mask.shape)
        latent = Latent({"kept": kept, "mask": mask}, {"coding": params["coding"]})
        if params["coding"] == "raw":
            latent.symbols["frames"] = frames * mask[..., None]
        else:  # what is lossy belongs to encode, not to write
            latent.side[blob_of(params["coding"])] = _compress(frames, mask, params["coding"], params["quality"])
        latents.append(latent)
    return latents


def _compress(frames: UInt8, mask: npt.NDArray[np.bool_], coding: str, quality: int) -> bytes:
    """Kept frames (k, H, W, 3) as one picture or as video, with what ``mask`` (k, H, W) drops filled to cost little."""
    if coding in CODECS:
        from semcodec.coding import videos  # and with it PyAV

        return videos.encode_clip(videos.hold_fill(frames, mask), coding, rate_factor(coding, quality))
    return pictures.encode_picture(pictures.stack_frames(pictures.smooth_fill(frames, mask)), coding, quality)
