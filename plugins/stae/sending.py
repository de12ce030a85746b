"""What STAE sends of clips once frames and pixels are chosen; numpy, so the same with torch and without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semcodec.coding import pictures
from semcodec.tensors import as_array, eight_bits
from semcodec.types import Latent


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
        else:
            # The picture is what is lossy here, so it belongs to encode, not to write.
            tall = pictures.stack_frames(pictures.smooth_fill(frames, mask))
            latent.side["picture"] = pictures.encode_picture(tall, params["coding"], params["quality"])
        latents.append(latent)
    return latents
