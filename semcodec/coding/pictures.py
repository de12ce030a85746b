"""JPEG, WebP, AVIF, PNG, JPEG 2000 and JPEG XL by Pillow, for any method that sends pictures.

A picture that arrives is not trusted: only the formats that the stream names are tried, its size, and that of what
its decoder would make room for, is checked before a pixel is decoded, and whatever Pillow says about it becomes
``CorruptStream``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from semcodec import _jpegxl_heads
from semcodec._picture_heads import JPEG2000, avif_sizes, jpeg2000_size, webp_size
from semcodec._video_heads import Size
from semcodec.errors import CorruptStream, PluginError, UsageError, first_line

Rgb = npt.NDArray[np.uint8]

FORMATS = ("jpeg", "webp", "avif", "png", "jpeg2000", "jpegxl")
MAX_SIDE = {"jpeg": 65535, "webp": 16383, "avif": 65535, "png": 1 << 20, "jpeg2000": 1 << 20, "jpegxl": 1 << 20}
"""Longest side, in pixels, that each format can hold (from PNG on: a bound of our own)."""
LOSSLESS = ("png",)
TINY = 64
"""Pixels up to which JPEG 2000 keeps all it has: its coder's estimate of the PSNR would leave out the colours."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"optimize": True},
    "webp": {"method": 4},
    "avif": {"speed": 6, "max_threads": 1},
    "png": {"optimize": True},
    "jpeg2000": {"no_jp2": True, "irreversible": True, "mct": 1, "quality_mode": "dB"},
    "jpegxl": {"effort": 7, "num_threads": 1},
}
_SLOWEST: dict[str, dict[str, Any]] = {"webp": {"method": 6}, "avif": {"speed": 0}, "jpegxl": {"effort": 10}}
"""Of formats whose coders take an effort, their greatest: many times slower, for somewhat fewer bytes."""
_BEGIN = {"jpegxl": _jpegxl_heads.SIGNATURE, "jpeg2000": JPEG2000}
"""How formats begin that would else be looked for in boxes of other things."""
_PILLOW = {"jpegxl": "JXL"}
"""Pillow's names of formats, where they are not ours in capitals."""


def encode_picture(
    rgb: Rgb,
    format: str,  # noqa: A002 - Pillow's own word
    quality: float = 75,
    *,
    slow: bool = False,
) -> bytes:
    """A picture of ``rgb`` (H, W, 3) uint8 without any metadata.

    quality: 1 to 100, in the format's own terms: of JPEG 2000 the PSNR in dB, at 100 all there is; at 100 JPEG XL is
    lossless; PNG always. slow: with the greatest effort that the coder knows, where it knows several.
    Raises UsageError on another shape, dtype, format or quality, and on sides that the format cannot hold, and
    PluginError where JPEG XL is not installed.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise UsageError(f"a picture must be uint8 (H, W, 3), not {rgb.dtype} {rgb.shape}")
    if format not in FORMATS:
        raise UsageError(f"no picture format '{format}'; there are {', '.join(FORMATS)}")
    if max(rgb.shape) > MAX_SIDE[format]:
        raise UsageError(f"{format} holds {MAX_SIDE[format]} pixels a side, not {max(rgb.shape)}; send fewer frames")
    options = _OPTIONS[format] | (_SLOWEST.get(format, {}) if slow else {})
    if format not in LOSSLESS:
        if not 1 <= quality <= 100:
            raise UsageError(f"quality must be 1 to 100, not {quality}")
        if format == "jpeg2000":
            options["quality_layers"] = [quality if rgb.size > 3 * TINY and quality < 100 else 0]
        else:
            options["quality"] = quality
        if format == "jpegxl" and quality == 100:
            options |= {"lossless": True, "use_original_profile": True}
    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(out, _pillow(format), **options)
    return _without_comment(out.getvalue()) if format == "jpeg2000" else out.getvalue()


def decode_picture(data: bytes, max_pixels: int, formats: Sequence[str] = FORMATS) -> Rgb:
    """The (H, W, 3) uint8 pixels of a picture in one of ``formats``.

    Raises CorruptStream if it is none, is damaged or cut, is no RGB picture, or has more than ``max_pixels``.
    """
    names = [_pillow(name) for name in formats if name not in _BEGIN or data.startswith(_BEGIN[name])]
    _check_head(data, max_pixels, formats)
    try:
        with Image.open(BytesIO(data), formats=names) as picture:
            if picture.width * picture.height > max_pixels:
                raise CorruptStream(
                    f"a picture of {picture.width}x{picture.height} where at most {max_pixels} pixels are due"
                )
            if picture.mode != "RGB":
                raise CorruptStream(f"a picture of mode {picture.mode} where RGB is due")
            picture.load()
            return np.array(picture, np.uint8)
    except CorruptStream:
        raise
    except UnidentifiedImageError:
        raise CorruptStream(f"not a {' or '.join(formats)} picture; the stream is damaged, get it again") from None
    except BaseException as error:  # Pillow raises what its decoders meet: SyntaxError, OSError, panics of Rust
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CorruptStream(f"a picture that cannot be decoded ({first_line(error)}); get the stream again") from error


def _check_head(data: bytes, max_pixels: int, formats: Sequence[str]) -> None:
    """Raises CorruptStream for what takes more room than ``max_pixels`` when Pillow opens or decodes it.

    Of the other formats Pillow reads no more than the size when it opens them, and decodes to that size.
    """
    try:
        for width, height in _sizes(data, formats):
            if width * height > max_pixels:
                raise CorruptStream(f"a picture of {width * height} pixels where at most {max_pixels} are due")
    except (ValueError, IndexError) as error:
        raise CorruptStream(f"a picture that is not decoded: {error}; get the stream again") from error


def _sizes(data: bytes, formats: Sequence[str]) -> Iterable[Size]:
    if "jpegxl" in formats and data.startswith(_jpegxl_heads.SIGNATURE):
        return _jpegxl_heads.jpegxl_sizes(data)
    if "jpeg2000" in formats and data.startswith(JPEG2000):
        return [jpeg2000_size(data)]
    if "webp" in formats and data[8:12] == b"WEBP":
        return [webp_size(data)]
    if "avif" in formats and data[4:8] == b"ftyp":
        return avif_sizes(data, exact=True)
    return []


def _pillow(format: str) -> str:  # noqa: A002
    """Pillow's name of a format, which it knows from here on."""
    if format == "jpegxl":
        _learn_jpegxl()
    return _PILLOW.get(format, format.upper())


def _without_comment(data: bytes) -> bytes:
    """A JPEG 2000 codestream less the comments in its main header, where its coder names itself."""
    kept, at = [data[:2]], 2
    while data[at : at + 2] != b"\xff\x90":  # up to the first tile
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at : at + 2] != b"\xff\x64":
            kept.append(data[at:end])
        at = end
    return b"".join(kept) + data[at:]


@cache
def _learn_jpegxl() -> None:
    try:
        import_module("pillow_jxl")  # registers itself with Pillow
    except ImportError as error:
        raise PluginError("JPEG XL needs a plugin of Pillow: pip install 'semcodec[jpegxl]'") from error


def stack_frames(frames: Rgb) -> Rgb:
    """(K, H, W, 3) frames one below the other, (K * H, W, 3): one picture, one header."""
    return frames.reshape(-1, *frames.shape[2:])


def unstack_frames(picture: Rgb, count: int) -> Rgb:
    """The inverse of ``stack_frames``. Raises CorruptStream if the height is no multiple of ``count``."""
    if count < 1 or len(picture) % count:
        raise CorruptStream(f"a picture of height {len(picture)} does not hold {count} frames of equal height")
    return picture.reshape(count, -1, *picture.shape[1:])


def smooth_fill(frames: Rgb, mask: npt.NDArray[np.bool_]) -> Rgb:
    """``frames`` (K, H, W, 3) with what ``mask`` (K, H, W) drops filled smoothly, so that a picture of it is small.

    Push-pull: means of the kept pixels over ever larger squares, and back, interpolated, where a square has none.
    """
    height, width = mask.shape[1:]
    levels = max(height - 1, width - 1, 0).bit_length()
    padding = ((0, 0), (0, (1 << levels) - height), (0, (1 << levels) - width), (0, 0))
    weight = np.pad(mask[..., None].astype(np.float32), padding)
    total = np.pad(frames.astype(np.float32), padding) * weight
    pyramid = [(total, weight)]
    for _ in range(levels):
        total, weight = _halve(total), _halve(weight)
        pyramid.append((total, weight))
    filled = np.full_like(pyramid[-1][0], 128)
    for i, (total, weight) in enumerate(reversed(pyramid)):
        coarse = _double(_double(filled, 1), 2) if i else filled
        filled = np.where(weight > 0, total / np.maximum(weight, 1), coarse)
    return np.where(mask[..., None], frames, np.round(filled[:, :height, :width]).astype(np.uint8))


def _halve(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sums of 2x2 squares over axes 1 and 2."""
    sums: npt.NDArray[np.float32] = (
        array[:, ::2, ::2] + array[:, 1::2, ::2] + array[:, ::2, 1::2] + array[:, 1::2, 1::2]
    )
    return sums


def _double(array: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """Twice as long along ``axis`` by linear interpolation."""
    count = array.shape[axis]
    before = array.take(np.maximum(np.arange(count) - 1, 0), axis)
    after = array.take(np.minimum(np.arange(count) + 1, count - 1), axis)
    pair = np.stack([0.75 * array + 0.25 * before, 0.75 * array + 0.25 * after], axis + 1)
    return pair.reshape(*array.shape[:axis], 2 * count, *array.shape[axis + 1 :])
