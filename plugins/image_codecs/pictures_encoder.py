"""A whole image, or the frames of a clip stacked into one picture, in one picture format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.coding.pictures import Rgb, decode_picture, encode_picture, stack_frames, unstack_frames
from semcodec.errors import CorruptStream, UsageError
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial
from semcodec.specs import FeatureSpec
from semcodec.tensors import as_array, eight_bits, from_eight_bits
from semcodec_plugins.image_codecs import external
from semcodec_plugins.image_codecs.coding import PictureCoding, spaced

if TYPE_CHECKING:
    from torch import Tensor

SHORT, MORE = 3, 6
"""By how much a JPEG 2000 picture may fall short of the PSNR asked for, and what is then asked for beyond it, in dB."""


class Picture(Encoder):
    """``format`` names the picture format; quality, in its own terms, and the number of frames are call parameters."""

    format: str
    knob = "quality"

    coding: PictureCoding

    def __init__(self, features: FeatureSpec) -> None:
        self.coding = PictureCoding(features, {})
        self.clip, self.shape = self.coding.clip, self.coding.shape

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Each sample as one picture. Raises UsageError for pixels that are not finite and parts of clips."""
        pixels = features["frames" if self.clip else "image"]
        values = eight_bits(pixels)
        quality, more = params.get(self.knob, 100), {"slow": True} if params.get("slow") else {}
        if not self.clip:
            return [Latent({}, {"picture": self.compress(image, quality, **more)}) for image in values]
        total = values.shape[1]
        if "index" in features and not (as_array(features["index"]) == np.arange(total)).all():
            raise UsageError(f"{self.format} sends whole clips: frames in order from 0 to {total - 1}")
        index = spaced(total, params.get("frames", 0))
        return [
            Latent({}, {"picture": self.compress(stack_frames(clip[index]), quality, **more), "index": index})
            for clip in values
        ]

    def restore(self, latent: Latent) -> Partial:
        """The picture's pixels, of a clip with their "index". Raises CorruptStream for one of another size."""
        import torch

        index = latent.side.get("index")
        count = 1 if index is None else len(index)
        rgb = self.expand(latent.side["picture"], self.coding.pixels(count))
        height, width = self.shape[-2:]
        due = (None if height is None else count * height, width)
        if any(a is not None and a != b for a, b in zip(due, rgb.shape[:2], strict=True)):
            raise CorruptStream(f"a picture of {rgb.shape[1]}x{rgb.shape[0]} where {due[1]}x{due[0]} is due")
        frames = from_eight_bits(unstack_frames(rgb, count))
        if index is None:
            return Partial({"image": frames})
        return Partial({"frames": frames[None], "index": torch.from_numpy(index)[None]})

    def compress(self, rgb: Rgb, quality: float, *, slow: bool = False) -> bytes:
        """The file of one picture, uint8 (H, W, 3). slow: at the coder's greatest effort, where that can be asked."""
        return encode_picture(rgb, self.format, quality, slow=slow)

    def expand(self, data: bytes, max_pixels: int) -> Rgb:
        """The inverse. Raises CorruptStream, before it decodes where the file claims more pixels."""
        return decode_picture(data, max_pixels, (self.format,))


class Jpeg(Picture):
    """JPEG by Pillow."""

    format = "jpeg"


class Webp(Picture):
    """WebP by Pillow."""

    format = "webp"


class Avif(Picture):
    """AVIF by Pillow."""

    format = "avif"


class Png(Picture):
    """PNG by Pillow: 8-bit pixels without loss."""

    format = "png"


class Jpeg2000(Picture):
    """OpenJPEG estimates the PSNR, far too high where there is little to code: then it is asked for more."""

    format = "jpeg2000"
    knob = "psnr"

    def compress(self, rgb: Rgb, quality: float, *, slow: bool = False) -> bytes:
        """The file at the PSNR ``quality`` in dB, or at most ``SHORT`` below."""
        data = b""
        for asked in (quality, quality + MORE, 100):
            data = super().compress(rgb, asked)
            error = np.square(self.expand(data, rgb[..., 0].size).astype(np.int32) - rgb).mean()
            if error <= 255**2 / 10 ** ((quality - SHORT) / 10):
                break
        return data


class JpegXl(Picture):
    """JPEG XL by a plugin of Pillow."""

    format = "jpegxl"


class Bpg(Picture):
    """By the programs of libbpg."""

    format = "bpg"
    knob = "qp"

    def compress(self, rgb: Rgb, quality: float, *, slow: bool = False) -> bytes:
        """The file at the quantiser ``quality``."""
        return external.encode_bpg(rgb, int(quality))

    def expand(self, data: bytes, max_pixels: int) -> Rgb:
        """The inverse, by ``bpgdec``."""
        return external.decode_bpg(data, max_pixels)
