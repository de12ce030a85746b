"""Image files to RGB pixels, and pictures to the size that a model wants."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from semcodec._picture_heads import avif_sizes
from semcodec.boxes import GREY, Letterbox
from semcodec.data.orientation import of_picture, upright, upright_size
from semcodec.errors import DataError, first_line

if TYPE_CHECKING:
    from semcodec.data.base import UInt8
    from semcodec.specs import InputRequest

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
_WHOLE = 1 << 24  # pixels of a resized picture that is made whole before it is cropped: a very long one is not
_DRAFT = 1 << 25  # pixels from which on a JPEG is decoded at a fraction of its size
_SPARE = 4  # such a draft has at least this many times the wanted pixels along both sides
_SMALL = 1 << 16  # pixels by which an AVIF picture may be coded larger than it is, as the tiles of a grid are
_TO_8_BIT = np.rint(np.arange(1 << 16) / 257).astype(np.uint8)


def fit(image: Image.Image, request: InputRequest, size: tuple[int, int] | None = None) -> UInt8:
    """An RGB picture as ``request`` wants it, its centre or, letterboxed, the whole: uint8 (height, width, 3).

    size: the source's width and height where the picture is a draft of it.
    With a crop of 1 and bilinear, all that the centre holds in one step. Otherwise, to the pixel, what timm's
    evaluation transform does: resize with antialiasing until ``crop`` of the picture is what is wanted, to whole
    pixels, then cut the centre out.
    """
    height, width = request.height, request.width
    if request.fit == "letterbox":
        return _letterboxed(image, request, Letterbox.of(*(size or image.size), width, height))
    if (request.crop, request.interpolation) == (1.0, "bilinear"):
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
        return _part(image, request, (left, top, left + width * scale, top + height * scale))
    wide, high = _scaled(image, request)
    left, top = round((wide - width) / 2), round((high - height) / 2)
    if wide * high > _WHOLE:
        x, y = image.width / wide, image.height / high
        return _part(image, request, (left * x, top * y, (left + width) * x, (top + height) * y))
    resized = image.resize((wide, high), RESAMPLING[request.interpolation])
    return np.asarray(resized.crop((left, top, left + width, top + height)))


def read_image(path: str | os.PathLike[str], request: InputRequest) -> UInt8:
    """An image file upright, RGB, resized and cropped after ``request``: uint8 (height, width, 3).

    What is transparent is laid over white, 16 bits are scaled to 8, CMYK is converted without a colour profile,
    and of several frames the first is taken. Raises DataError for a file that is missing or cannot be read, has
    more than about 179 million pixels or pixels of no known range (32-bit integers, floating point).
    """
    with _opened(path) as image:
        size = upright_size(image)
        _draft(image, request)
        return fit(_upright(image), request, size)


def read_bytes(data: bytes, where: str, request: InputRequest) -> tuple[UInt8, tuple[int, int]]:
    """``read_image`` of a file's bytes, and its width and height, upright. where: what messages call it."""
    with _one_line(where), Image.open(BytesIO(data)) as image:
        _check_avif(data, image)
        size = upright_size(image)
        _draft(image, request)
        return fit(_upright(image), request, size), size


def size_in(data: bytes, where: str) -> tuple[int, int]:
    """``size_of`` of a file's bytes."""
    with _one_line(where), Image.open(BytesIO(data)) as image:
        _check_avif(data, image)
        return upright_size(image)


def from_picture(image: Image.Image, request: InputRequest) -> tuple[UInt8, tuple[int, int]]:
    """The same of a picture in memory, which stays as it is, and its width and height, upright. Raises DataError."""
    with _one_line("the Pillow image"):
        whole = _upright(image)
        return fit(whole, request), whole.size


def size_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of an image file, upright. Raises DataError as ``read_image`` does, for what its head shows."""
    with _opened(path) as image:
        return upright_size(image)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image file of which the head was read."""
    if os.path.isdir(path):
        raise DataError(f"{path}: is a folder where an image file is wanted")
    if not os.path.isfile(path):
        raise DataError(f"no such image file: {path}")
    if not os.path.getsize(path):
        raise DataError(f"{path}: is an empty file")
    with _one_line(str(path)), Image.open(path) as image:
        if image.format == "AVIF":
            with open(path, "rb") as file:
                _check_avif(file.read(), image)
        yield image


def _check_avif(data: bytes, image: Image.Image) -> None:
    """Raises DataError where what is coded is far larger than what the file says that it shows."""
    if image.format != "AVIF":
        return
    size = image.size
    if b"avis" in data[:64]:  # a sequence, of which the decoder bounds the pictures
        return
    for width, height in avif_sizes(data):
        if width * height > 2 * size[0] * size[1] + _SMALL:
            raise DataError(f"is coded as {width}x{height} where it says {size[0]}x{size[1]}")


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Whatever is wrong with a picture, said in one line that begins with ``where``: DataError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd metadata: what matters is an error
            yield
    except DataError as e:
        raise DataError(f"{where}: {e}") from e
    except Image.DecompressionBombError as e:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(f"{where}: has more pixels than the {most:,} that are read; make it smaller first") from e
    except UnidentifiedImageError as e:
        raise DataError(f"{where}: is no image, or of a format that cannot be read here") from e
    except Exception as e:  # Pillow's decoders raise nearly anything on broken files
        raise DataError(f"{where}: cannot be read as an image ({first_line(e)})") from e


def _letterboxed(image: Image.Image, request: InputRequest, box: Letterbox) -> UInt8:
    across, down = box.inside
    resized = image.resize((across, down), RESAMPLING[request.interpolation])
    canvas = np.full((request.height, request.width, 3), GREY, np.uint8)
    canvas[box.top : box.top + down, box.left : box.left + across] = np.asarray(resized)
    return canvas


def _draft(image: Image.Image, request: InputRequest) -> None:
    """Has a very large JPEG decoded at a fraction of its size."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.width * image.height > _DRAFT:
        side = _SPARE * math.ceil(max(request.height, request.width) / request.crop)
        image.draft(None, (side, side))


def _upright(image: Image.Image) -> Image.Image:
    """A picture as RGB, turned as its EXIF says. It stays as it is, and is not copied without need."""
    deep = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    orientation = of_picture(image)
    image.load()
    clear = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple) and (deep or max(clear) > 255):
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)  # it is of 16 bits, the pixels are of 8
    return upright(_rgb(image), orientation)


def _rgb(image: Image.Image) -> Image.Image:
    """A decoded picture of any mode as RGB, over white where it is transparent."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow would clip these
        return _grey_of_16_bits(image)
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise DataError(f"has {kind} pixels, whose range is not known; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        colours = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(colours.convert("RGB"), mask=colours.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey_of_16_bits(image: Image.Image) -> Image.Image:
    levels = np.asarray(image)
    grey = _TO_8_BIT[levels]
    if isinstance(clear := image.info.get("transparency"), int):
        grey = np.where(levels == clear, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def _scaled(image: Image.Image, request: InputRequest) -> tuple[int, int]:
    """Width and height of the resized picture, rounded as timm's transforms round them."""
    wide, high = (math.floor(side / request.crop) for side in (request.width, request.height))
    if wide == high:
        longer = int(wide * max(image.size) / min(image.size))
        return (wide, longer) if image.width <= image.height else (longer, high)
    ratio = min(image.width / wide, image.height / high)
    return max(request.width, round(image.width / ratio)), max(request.height, round(image.height / ratio))


def _part(image: Image.Image, request: InputRequest, box: tuple[float, float, float, float]) -> UInt8:
    """The part of a picture within (left, top, right, bottom), resized; rounding may not lead out of the picture."""
    left, top, right, bottom = box
    inside = (max(0.0, left), max(0.0, top), min(image.width, right), min(image.height, bottom))
    return np.asarray(image.resize((request.width, request.height), RESAMPLING[request.interpolation], box=inside))
