"""A clip as video, through PyAV: what video engineers would send."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from semcodec.data.video import UInt8, decode_frames, decode_h264, encode_frames, encode_h264, planar
from semcodec.errors import CorruptStream, DataError
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial
from semcodec.specs import FeatureSpec
from semcodec.tensors import eight_bits, from_eight_bits
from semcodec_plugins.image_codecs import external
from semcodec_plugins.image_codecs.coding import VideoCoding, spaced

if TYPE_CHECKING:
    from torch import Tensor


class Video(Encoder):
    """A bare stream of the whole clip, or of ``frames`` uniformly spaced ones, at the constant quality ``knob``."""

    knob = "crf"

    coding: VideoCoding

    def __init__(self, features: FeatureSpec) -> None:
        self.coding = VideoCoding(features, {})
        self.total, self.height, self.width = self.coding.total, self.coding.height, self.coding.width

    @abstractmethod
    def compress(self, clip: UInt8, quality: int) -> bytes:
        """The stream of a clip, uint8 (T, H, W, 3)."""

    @abstractmethod
    def expand(self, data: bytes, count: int) -> UInt8:
        """The inverse, of ``count`` frames. Raises DataError."""

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Each clip as one stream. Raises UsageError for pixels that are not finite."""
        index = spaced(self.total, params["frames"])
        clips = eight_bits(features["frames"][:, index])
        return [Latent({}, {"video": self.compress(clip, params[self.knob]), "index": index}) for clip in clips]

    def restore(self, latent: Latent) -> Partial:
        """The decoded frames with their positions, "index". Raises CorruptStream."""
        import torch

        index = latent.side["index"]
        try:
            clip = self.expand(latent.side["video"], len(index))
        except DataError as error:
            raise CorruptStream(str(error)) from error
        return Partial({"frames": from_eight_bits(clip)[None], "index": torch.from_numpy(index)[None]})


class H264(Video):
    """An Annex B stream by x264."""

    def compress(self, clip: UInt8, quality: int) -> bytes:
        """By x264 at the constant rate factor ``quality``."""
        return encode_h264(clip, quality)

    def expand(self, data: bytes, count: int) -> UInt8:
        return decode_h264(data, count, self.height, self.width)


class FFmpeg(Video):
    """A stream by one of FFmpeg's other encoders, on one thread."""

    form: ClassVar[str]
    """FFmpeg's name of the bare stream."""

    def expand(self, data: bytes, count: int) -> UInt8:
        return decode_frames(data, self.form, f"a {self.form}", count, self.height, self.width)


class H265(FFmpeg):
    """An Annex B stream by x265."""

    form = "hevc"

    def compress(self, clip: UInt8, quality: int) -> bytes:
        # A frame of one coding tree unit, and its macroblock tree in small frames, make x265 read what it never wrote.
        """By x265 at the constant rate factor ``quality``."""
        unit = 32 if min(clip.shape[1:3]) >= 64 else 16
        own = f"log-level=none:info=0:pools=none:frame-threads=1:no-cutree=1:ctu={unit}"
        return encode_frames(clip, "libx265", {"crf": str(quality), "preset": "medium", "x265-params": own})


class Av1(FFmpeg):
    """A low-overhead stream of open bitstream units by SVT-AV1."""

    form = "obu"

    def compress(self, clip: UInt8, quality: int) -> bytes:
        """By SVT-AV1 at the constant rate factor ``quality``."""
        os.environ.setdefault("SVT_LOG", "1")  # errors alone: it would tell its settings on stderr
        return encode_frames(clip, "libsvtav1", {"crf": str(quality), "preset": "6", "svtav1-params": "lp=1"})


class Vvc(FFmpeg):
    """An Annex B stream by VVenC's program, decoded by FFmpeg."""

    form = "vvc"
    knob = "qp"

    def compress(self, clip: UInt8, quality: int) -> bytes:
        """By VVenC at the quantiser ``quality``."""
        return external.encode_vvc([planar(frame).to_ndarray() for frame in clip], quality)
