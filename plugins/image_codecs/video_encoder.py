"""A clip as video, through PyAV: what video engineers would send."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from semcodec.coding.videos import UInt8, decode_clip, decode_frames, encode_clip, planar
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
    def compress(self, clip: UInt8, quality: int, settings: Mapping[str, Any]) -> bytes:
        """The stream of a clip, uint8 (T, H, W, 3). settings: the call parameters, as ``preset`` and ``group``."""

    @abstractmethod
    def expand(self, data: bytes, count: int) -> UInt8:
        """The inverse, of ``count`` frames. Raises DataError."""

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Each clip as one stream. Raises UsageError for pixels that are not finite."""
        index = spaced(self.total, params["frames"])
        clips = eight_bits(features["frames"][:, index])
        quality = params[self.knob]
        return [Latent({}, {"video": self.compress(clip, quality, params), "index": index}) for clip in clips]

    def restore(self, latent: Latent) -> Partial:
        """The decoded frames with their positions, "index". Raises CorruptStream."""
        import torch

        index = latent.side["index"]
        try:
            clip = self.expand(latent.side["video"], len(index))
        except DataError as error:
            raise CorruptStream(str(error)) from error
        return Partial({"frames": from_eight_bits(clip)[None], "index": torch.from_numpy(index)[None]})


class Known(Video):
    """A stream by one of the codecs that core has, on one thread."""

    codec: ClassVar[str]

    def compress(self, clip: UInt8, quality: int, settings: Mapping[str, Any]) -> bytes:
        """At the constant rate factor ``quality``."""
        return encode_clip(clip, self.codec, quality, settings.get("preset"), settings.get("group", 0))

    def expand(self, data: bytes, count: int) -> UInt8:
        return decode_clip(data, self.codec, count, self.height, self.width)


class H264(Known):
    """An Annex B stream by x264."""

    codec = "h264"


class H265(Known):
    """An Annex B stream by x265."""

    codec = "h265"


class Av1(Known):
    """A low-overhead stream of open bitstream units by SVT-AV1."""

    codec = "av1"


class Vvc(Video):
    """An Annex B stream by VVenC's program, decoded by FFmpeg."""

    knob = "qp"

    def compress(self, clip: UInt8, quality: int, settings: Mapping[str, Any]) -> bytes:
        """By VVenC at the quantiser ``quality``."""
        return external.encode_vvc([planar(frame).to_ndarray() for frame in clip], quality)

    def expand(self, data: bytes, count: int) -> UInt8:
        return decode_frames(data, "vvc", "a vvc", count, self.height, self.width)
