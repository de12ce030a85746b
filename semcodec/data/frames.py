"""Frames of video files through PyAV, upright and with square pixels, counted as the decoder gives them.

What a container says of its frames (how many, when each is shown) is often wrong; the order of the decoder is right.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from semcodec._pyav import BitStreamFilterContext, FFmpegError, av
from semcodec._video_heads import coded_sizes
from semcodec.data import orientation
from semcodec.data.images import fit
from semcodec.errors import DataError, first_line
from semcodec.specs import InputRequest

UInt8 = npt.NDArray[np.uint8]

MOST_PIXELS = 1 << 26
"""Of a frame that is decoded: 8192x8192."""
_STREAMS = 64  # of a file, which are looked into
_TO_ANNEX_B = {name: f"{name}_mp4toannexb" for name in ("h264", "hevc", "vvc")}
"""By codec, FFmpeg's filter that puts a file's parameter sets in front of what is coded with them."""
_FAR = 128  # frames to skip by decoding rather than by seeking
_BEFORE = 32  # frames from where a seek leads to the first one wanted, more than any decoder holds back
_TIMED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # forms whose time stamps are of showing, so that one may seek
_STRETCHED = 1 << 24  # pixels up to which a frame is made larger, not smaller, where its pixels are not square
_ROUNDING = 0.01


class Survey(NamedTuple):
    """What a file's packets say, without decoding them. Headers often lie about the number of frames."""

    total: int
    """Frames from the first key frame on, one for each packet."""
    lost: int
    """Frames before it, which cannot be decoded: the recording was cut."""
    keyless: bool
    """Whether no packet is marked as a key frame."""
    stamps: list[int] | None
    """Time stamps in showing order, where they are complete and the file may be entered by them."""


@contextmanager
def opened(path: str | os.PathLike[str], options: Mapping[str, str] | None = None) -> Iterator[tuple[Any, Any]]:
    """The container and its first real video stream; whatever FFmpeg says of the file becomes one line.

    options: of the decoders that look into the file for what its head does not say.
    """
    limit = {"max_pixels": str(MOST_PIXELS)}
    try:
        with _open(path, limit, options or {}) as container:
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not streams:
                raise DataError(f"{path}: has no video stream")
            codec = streams[0].codec_context
            if codec is None:  # decoding would crash in PyAV before 18
                raise DataError(f"{path}: its video codec is unknown here; convert it, for example to H.264")
            _check_size(path, codec.width, codec.height)
            codec.options = limit
            yield container, streams[0]
    except (FFmpegError, OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or first_line(e)
        raise DataError(f"{path}: cannot be read as video ({reason}); the file is broken, truncated or no video") from e


def _open(path: str | os.PathLike[str], limit: dict[str, str], looking: Mapping[str, str]) -> Any:
    if looking:
        with suppress(ValueError):  # MPEG program streams name none of their streams before FFmpeg has looked
            every: list[Any] = [dict(looking)] * _STREAMS  # PyAV's stub has strings in their place
            return av.open(os.fspath(path), options=limit, stream_options=every)
    return av.open(os.fspath(path), options=limit)


def survey(path: str | os.PathLike[str]) -> Survey:
    """Reads all packets. Raises DataError for a file that ends within one, or is coded too large to be decoded."""
    _check_coded(path)
    stamps: list[int | None] = []
    lost, keyless = 0, True
    with opened(path) as (container, stream):
        timed = container.format.name in _TIMED
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.is_corrupt:
                raise DataError(f"{path}: ends within a frame; the file is truncated")
            if keyless and packet.is_keyframe:
                lost, keyless = len(stamps), False
            if not packet.is_discard:
                stamps.append(packet.pts)
    known = sorted(stamp for stamp in stamps if stamp is not None)
    complete = timed and not lost and len(set(known)) == len(stamps)
    return Survey(len(stamps) - lost, lost, keyless, known if complete else None)


def _check_coded(path: str | os.PathLike[str]) -> None:
    """What is cut off for showing takes memory too, which some decoders do not count: found before one runs."""
    with opened(path, {"skip_frame": "all"}) as (container, stream):
        name = stream.codec_context.name
        if name not in _TO_ANNEX_B:
            return
        filtered = BitStreamFilterContext(_TO_ANNEX_B[name], in_stream=stream)
        for packet in container.demux(stream):
            for plain in filtered.filter(packet) if packet.size else ():
                for wide, high in coded_sizes(bytes(plain), name):
                    _check_size(path, wide, high)


def _check_size(path: str | os.PathLike[str], wide: int, high: int) -> None:
    if wide * high > MOST_PIXELS:
        raise DataError(
            f"{path}: has frames of {wide}x{high}, more than the {MOST_PIXELS:,} pixels that are read; make it smaller "
            "first"
        )


def decode(
    path: str | os.PathLike[str], picks: Sequence[int], found: Survey, request: InputRequest
) -> tuple[dict[int, UInt8], int]:
    """The frames numbered ``picks`` from the first key frame on, by number, as ``request`` wants them.

    Also how many frames there were up to the last one seen.
    """
    wanted = sorted(set(picks))
    if found.stamps is not None and wanted[0] > _FAR:
        clip = _from_the_middle(path, wanted, found.stamps, request)
        if clip is not None:
            return clip, wanted[-1] + 1
    clip, number = {}, -1
    with opened(path) as (container, stream):
        begun = found.keyless
        for packet in container.demux(stream):
            begun = begun or packet.is_keyframe
            for frame in packet.decode() if begun else ():
                number += 1
                if number == wanted[len(clip)]:
                    clip[number] = shown(frame, stream, request)
                    if len(clip) == len(wanted):
                        return clip, number + 1
    return clip, number + 1


def walk(
    path: str | os.PathLike[str], wanted: Iterator[int], found: Survey, request: InputRequest
) -> Iterator[tuple[int, UInt8]]:
    """Frames by number in one pass, as ``request`` wants them: those that ``wanted`` gives, which rise."""
    number, due = -1, next(wanted, None)
    with opened(path) as (container, stream):
        begun = found.keyless
        for packet in container.demux(stream):
            begun = begun or packet.is_keyframe
            for frame in packet.decode() if begun else ():
                number += 1
                if due is None:
                    return
                if number == due:
                    yield number, shown(frame, stream, request)
                    due = next(wanted, None)


def frame_at(path: str | os.PathLike[str], seconds: float, found: Survey) -> int:
    """The number of the first frame that is shown at a time after the first one's, or later."""
    with opened(path) as (_, stream):
        if found.stamps:
            return bisect_left(found.stamps, found.stamps[0] + seconds / float(stream.time_base) - 0.5)
        return round(seconds * float(stream.average_rate or stream.guessed_rate or 25))


def second_of(path: str | os.PathLike[str], number: int, found: Survey) -> float:
    """When a frame is shown, in seconds after the first one: the inverse of ``frame_at``."""
    with opened(path) as (_, stream):
        if found.stamps and number < len(found.stamps):
            return float((found.stamps[number] - found.stamps[0]) * stream.time_base)
        return number / float(stream.average_rate or stream.guessed_rate or 25)


def _from_the_middle(
    path: str | os.PathLike[str], wanted: Sequence[int], stamps: list[int], request: InputRequest
) -> dict[int, UInt8] | None:
    """The same by seeking, or None where the decoder does not give one frame after the other as the stamps say."""
    clip: dict[int, UInt8] = {}
    with opened(path) as (container, stream):
        container.seek(stamps[wanted[0] - _BEFORE], stream=stream)
        expected = None
        for frame in container.decode(stream):
            number = len(stamps) if frame.pts is None else bisect_left(stamps, frame.pts)
            if number not in ((expected,) if expected is not None else range(wanted[0] + 1)):
                return None
            expected = number + 1
            if number == wanted[len(clip)]:
                clip[number] = shown(frame, stream, request)
                if len(clip) == len(wanted):
                    return clip
    return None


def shown(frame: Any, stream: Any, request: InputRequest) -> UInt8:
    """A decoded frame with square pixels, turned as its display matrix says, resized and cropped."""
    return fit(upright(frame, stream), request)


def upright(frame: Any, stream: Any) -> Image.Image:
    """A decoded frame with square pixels, turned as its display matrix says."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    square = _square(image, float(stream.sample_aspect_ratio or 1))
    matrix = frame.side_data.get("DISPLAYMATRIX")
    turned = orientation.of_matrix(np.frombuffer(bytes(matrix), np.int32).tolist()) if matrix is not None else 1
    return orientation.upright(square, turned)


def _square(image: Image.Image, aspect: float) -> Image.Image:
    """With one side stretched, or in very large frames compressed, where pixels are ``aspect`` times as wide as high.

    Less than a hundredth is what rounding a picture's sides leaves behind, as in 640:639, and nothing is done.
    """
    if aspect <= 0 or abs(aspect - 1) < _ROUNDING:
        return image
    wide, high = image.size
    larger = (round(wide * aspect), high) if aspect > 1 else (wide, round(high / aspect))
    if larger[0] * larger[1] > _STRETCHED:
        larger = (wide, max(1, round(high / aspect))) if aspect > 1 else (max(1, round(wide * aspect)), high)
    return image.resize(larger, Image.Resampling.BILINEAR)
