"""A clip as H.264, by x264 through PyAV: what video engineers would send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from semcodec.data.video import decode_h264, encode_h264
from semcodec.errors import CorruptStream, DataError
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial, Sink, Source
from semcodec.pixels import eight_bits, from_eight_bits
from semcodec.specs import FeatureSpec
from semcodec_plugins.image_codecs.pictures_encoder import spaced


class H264(Encoder):
    """A bare Annex B stream of the whole clip, or of ``frames`` uniformly spaced ones, at constant quality ``crf``."""

    def __init__(self, features: FeatureSpec) -> None:
        self.total, _, self.height, self.width = features["frames"].shape

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        index = spaced(self.total, params["frames"])
        clips = eight_bits(features["frames"][:, index])
        return [Latent({}, {"video": encode_h264(clip, params["crf"]), "index": index}) for clip in clips]

    def write(self, latent: Latent, sink: Sink) -> None:
        sink.blob("video", latent.side["video"])

    def read(self, source: Source) -> Latent:
        index = spaced(self.total, source.params["frames"])
        return Latent({}, {"video": source.blob("video", 4096 + 6 * self._size(len(index))), "index": index})

    def restore(self, latent: Latent) -> Partial:
        index = latent.side["index"]
        try:
            clip = decode_h264(latent.side["video"], len(index), self.height, self.width)
        except DataError as error:
            raise CorruptStream(str(error)) from error
        return Partial({"frames": from_eight_bits(clip)[None], "index": torch.from_numpy(index)[None]})

    def _size(self, count: int) -> int:
        return count * self.height * self.width
