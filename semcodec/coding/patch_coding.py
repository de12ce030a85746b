"""The kept patches of one image as bytes: their pixels without loss, or a picture of them by a real image codec.

What is sent of them is an image uint8 (H, W, 3), zero where no patch is kept, or the bytes of a picture.
"""

from __future__ import annotations

from semcodec.coding import pictures, pixels
from semcodec.coding.patches import Bool, Rgb, pasted, picture_of, picture_size, spread
from semcodec.types import Sink, Source

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
