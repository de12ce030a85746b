"""The Coding of STAE: kept frames, the mask of their pixels, and these pixels or a picture of them; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semcodec.coding import masks, pixels
from semcodec.coding.video_params import CODECS
from semcodec.errors import CorruptStream
from semcodec.interfaces import Coding
from semcodec.priors import Bits
from semcodec.specs import FeatureSpec
from semcodec.types import Latent, Sink, Source


class STAECoding(Coding):
    """A Latent has the symbols "kept", bool (T,), true for one frame or more, "mask", bool (k, H, W) of the k kept
    frames, and, coded as "raw", "frames", uint8 (k, H, W, 3), zero where the mask is false. Beside them are "coding"
    and, coded otherwise, the bytes of a "picture" that holds the frames one below the other, or of their "video".
    """

    def __init__(self, features: FeatureSpec, state: Mapping[str, Any], **params: Any) -> None:
        total, _, height, width = features["frames"].shape
        assert total is not None and height is not None and width is not None
        self.total, self.height, self.width = total, height, width

    def write(self, latent: Latent, sink: Sink) -> None:
        kept, mask = latent.symbols["kept"], latent.symbols["mask"]
        sink.symbols("kept", kept.astype(np.int32), Bits(1), side=True)
        masks.write_mask(mask, sink)
        if latent.side["coding"] == "raw":
            pixels.write_pixels(latent.symbols["frames"], mask, sink)
        else:
            name = blob_of(latent.side["coding"])
            sink.blob(name, latent.side[name])

    def read(self, source: Source) -> Latent:
        kept = source.symbols("kept", self.total, Bits(1)).astype(bool)
        count = int(kept.sum())
        if not count:
            raise CorruptStream("the packet keeps no frame")
        mask = masks.read_mask((count, self.height, self.width), source)
        latent = Latent({"kept": kept, "mask": mask}, {"coding": source.params["coding"]})
        if latent.side["coding"] == "raw":
            latent.symbols["frames"] = pixels.read_pixels(mask, source)
        else:
            name = blob_of(latent.side["coding"])
            latent.side[name] = source.blob(name, 4096 + 6 * mask.size)
        return latent


def blob_of(coding: str) -> str:
    """What the bytes of kept frames are named that are not coded as "raw"."""
    return "video" if coding in CODECS else "picture"
