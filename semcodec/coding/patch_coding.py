"""The kept patches of one image as bytes: their pixels without loss, or a picture of them by a real image codec.

What is sent of them is an image uint8 (H, W, 3), zero where no patch is kept, or the bytes of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.coding import masks, pictures, pixels
from semcodec.coding.patches import Bool, Rgb, pasted, patch_grid, picture_of, picture_size, spread
from semcodec.errors import CorruptStream
from semcodec.interfaces import Coding
from semcodec.specs import FeatureSpec
from semcodec.types import Latent, Sink, Source

RAW = "raw"
Sent = Rgb | bytes
Names = tuple[str, str]
NAMES = "pixels", "picture"


def encode_patches(image: Rgb, mask: Bool, side: int, coding: str, quality: int) -> Sent:
    """Of an image uint8 (H, W, 3) the patches that ``mask`` (h, w) keeps, one or more. coding: "raw" or a picture's."""
    if coding == RAW:
        kept: Rgb = image * spread(mask, side)[..., None]
        return kept
    return pictures.encode_picture(picture_of(image, mask, side), coding, quality)


def write_patches(sent: Sent, mask: Bool, side: int, sink: Sink, names: Names = NAMES) -> None:
    """names: of the chunk that holds pixels and of the one that holds a picture; checksums run over them."""
    if isinstance(sent, bytes):
        sink.blob(names[1], sent)
    else:
        pixels.write_pixels(sent[None], spread(mask, side)[None], sink, names[0])


def read_patches(mask: Bool, side: int, coding: str, source: Source, names: Names = NAMES) -> Sent:
    """What ``write_patches`` wrote of the same mask under the same names. Raises CorruptStream."""
    if coding == RAW:
        image: Rgb = pixels.read_pixels(spread(mask, side)[None], source, names[0])[0]
        return image
    # No format here spends more than twice the raw size, whatever the pixels.
    return source.blob(names[1], 4096 + 6 * picture_size(mask, side))


def decode_patches(sent: Sent, mask: Bool, side: int, coding: str) -> Rgb:
    """The patches in their places, (H, W, 3), zero elsewhere. Raises CorruptStream for a picture that is none."""
    if not isinstance(sent, bytes):
        return sent
    return pasted(pictures.decode_picture(sent, picture_size(mask, side), (coding,)), mask, side)


class PatchesCoding(Coding):
    """The Coding of Encoders that send some patches of an image: their mask, then the patches.

    side: of a patch, in pixels; 0 is the usual. A Latent has the symbols "mask", bool (h, w), true for one patch or
    more, and beside them "sent", which is what ``encode_patches`` gives, and "coding", how patches are sent.
    """

    def __init__(self, features: FeatureSpec, state: Mapping[str, Any], *, side: int, **params: Any) -> None:
        self.side, self.grid = patch_grid(features, side)

    def write(self, latent: Latent, sink: Sink) -> None:
        mask = latent.symbols["mask"]
        masks.write_mask(mask[None], sink)
        write_patches(latent.side["sent"], mask, self.side, sink)

    def read(self, source: Source) -> Latent:
        [mask] = masks.read_mask((1, *self.grid), source)
        if not mask.any():
            raise CorruptStream("the packet keeps no patch; the stream is damaged, get it again")
        coding = source.params["patches"]
        return Latent({"mask": mask}, {"sent": read_patches(mask, self.side, coding, source), "coding": coding})
