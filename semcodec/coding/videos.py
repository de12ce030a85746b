"""H.264, H.265 and AV1 by FFmpeg's encoders through PyAV, for any method that sends video: clips, or planes of values.

A stream is bare: no container, no message of an encoder about itself. A stream that arrives is not trusted: what it
asks its decoder to make room for is checked before a frame is decoded, and whatever FFmpeg says becomes ``DataError``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec._pyav import FFmpegError, av
from semcodec._video_heads import coded_sizes
from semcodec.coding.pictures import smooth_fill
from semcodec.coding.video_params import CODECS, PLANAR
from semcodec.errors import DataError, first_line

UInt8 = npt.NDArray[np.uint8]
Values = npt.NDArray[np.unsignedinteger[Any]]


# Clips in colour, at a constant rate factor


def encode_clip(frames: UInt8, codec: str, crf: int, preset: str | int | None = None, group: int = 0) -> bytes:
    """A clip, uint8 (T, H, W, 3), at the constant rate factor ``crf``, from 0, the most faithful, to the codec's worst.

    preset: the encoder's own, how long it looks for fewer bytes; None: "medium" of H.264 and H.265, 6 of AV1.
    group: most frames from one key frame to the next; 0: as the encoder decides.
    4:2:0, so both sides must be even; of H.265 and AV1 at least ``LEAST``.
    """
    if codec == "h264":
        return encode_h264(frames, crf, str(preset or "medium"), group)
    own = {"crf": str(crf)} if preset is None else {"crf": str(crf), "preset": str(preset)}
    return encode_frames(frames, CODECS[codec].encoder, _options(codec, min(frames.shape[1:3]), own, group))


def decode_clip(data: bytes, codec: str, count: int, height: int, width: int) -> UInt8:
    """The frames, uint8 (count, height, width, 3), of ``encode_clip``. Raises DataError as ``decode_frames`` does."""
    known = CODECS[codec]
    return decode_frames(data, known.form, known.title, count, height, width)


def encode_h264(frames: UInt8, crf: int, preset: str = "medium", group: int = 0) -> bytes:
    """x264 at constant quality ``crf`` (0..51, lower is better) of a clip, uint8 (T, H, W, 3), as ``encode_clip``.

    A bare Annex B stream, all that a decoder needs: no container (about a kilobyte for MP4), and without the
    message of some 700 bytes in which x264 names its settings. 4:2:0, so both sides must be even.
    """
    count, height, width = frames.shape[:3]
    if not count or not 0 <= crf <= 51:
        raise DataError(f"H.264 takes at least one frame and a crf of 0 to 51, not {count} frames and {crf}")
    if height % 2 or width % 2:
        raise DataError(f"H.264 in 4:2:0 takes frames with even sides, not {height}x{width}")
    options = _options("h264", min(height, width), {"crf": str(crf), "preset": preset}, group)
    return _without_messages(encode_frames(frames, "libx264", options))


def decode_h264(data: bytes, count: int, height: int, width: int) -> UInt8:
    """The frames, uint8 (count, height, width, 3), of ``encode_h264``.

    Raises DataError for bytes that are no such stream; one of other frames is given up at the first of them.
    """
    return decode_frames(data, "h264", "an H.264", count, height, width)


def hold_fill(frames: UInt8, mask: npt.NDArray[np.bool_]) -> UInt8:
    """``frames`` (K, H, W, 3) with what ``mask`` (K, H, W) drops filled so that video of it is small.

    A dropped pixel stays what it last was, or is what it first will be, which prediction over time gives for nothing;
    one that no frame has is filled smoothly.
    """
    count = len(mask)
    at = np.arange(count)[:, None, None]
    last = np.maximum.accumulate(np.where(mask, at, -1))
    first = mask.argmax(0)[None]
    held = np.take_along_axis(frames, np.where(last < 0, first, last)[..., None], axis=0)
    return smooth_fill(held, np.broadcast_to(mask.any(0), mask.shape))


# Planes of values, at a constant quantiser


def encode_planes(planes: Values, codec: str, qp: int, bits: int) -> bytes:
    """Frames of one plane of values, uint8 or uint16 (T, H, W) of 8 or 10 ``bits``, at the constant quantiser ``qp``.

    For values that no eye sees: tools that please eyes are off, and no quantiser is adapted to what is busy. 4:0:0
    where the encoder has it, else chroma is constant. Sides are even and at least ``LEAST``. Raises DataError.
    """
    known, (count, height, width) = CODECS[codec], planes.shape
    if not count or bits not in PLANAR or not 0 <= qp <= known.worst or height % 2 or width % 2:
        raise DataError(
            f"{codec} takes planes with even sides, {' or '.join(map(str, PLANAR))} bits and a qp of 0 to "
            f"{known.worst}, not {count} of {height}x{width}, {bits} bits and {qp}"
        )
    if codec == "av1":
        tuned = {"qp": str(max(1, qp))}  # 0 stands for none given
    else:  # x264 alone counts from its finest step, which more bits make finer
        tuned = {"qp": str(qp + 6 * (bits - 8) if codec == "h264" else qp), "tune": "psnr"}
    form = ("gray" if known.grey else "yuv420p") + ("10le" if bits == 10 else "")
    frames = (_plane(values, form, bits) for values in planes)
    data = _encode(frames, height, width, form, known.encoder, _options(codec, min(height, width), tuned))
    return _without_messages(data) if codec == "h264" else data


def decode_planes(data: bytes, codec: str, count: int, height: int, width: int, bits: int) -> Values:
    """The values, uint8 or uint16 (count, height, width), of ``encode_planes``.

    Raises DataError for bytes that are no such stream; one of other frames or bits is given up at the first of them.
    """
    known, dtype = CODECS[codec], np.dtype("<u2" if bits == 10 else "u1")
    planes = np.empty((count, height, width), dtype)

    def values(frame: Any) -> Values:
        if frame.format.name not in PLANAR[bits]:
            raise DataError(f"{known.title} stream of {frame.format.name} where values of {bits} bits are due")
        plane = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : width * dtype.itemsize]
        return np.ascontiguousarray(rows).view(dtype)

    for number, found in enumerate(_decoded(data, known.form, known.title, count, height, width, values)):
        planes[number] = found
    return planes


def _plane(values: Values, form: str, bits: int) -> Any:
    """A frame whose first plane is ``values`` (H, W), with constant chroma where the form has any."""
    height, width = values.shape
    frame, dtype = av.VideoFrame(width, height, form), "<u2" if bits == 10 else "u1"
    for number, plane in enumerate(frame.planes):
        rows = np.full((plane.height, plane.line_size // np.dtype(dtype).itemsize), 1 << bits - 1, dtype)
        if not number:
            rows[:, :width] = values
        plane.update(rows.tobytes())
    return frame


# Any of FFmpeg's codecs


def planar(pixels: UInt8) -> Any:
    """A frame in 4:2:0 of RGB pixels (H, W, 3)."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="yuv420p")


def encode_frames(frames: UInt8, encoder: str, options: Mapping[str, str]) -> bytes:
    """The packets of one of FFmpeg's encoders, one after the other: frames uint8 (T, H, W, 3), coded in 4:2:0."""
    height, width = frames.shape[1:3]
    return _encode(map(planar, frames), height, width, "yuv420p", encoder, options)


def decode_frames(data: bytes, form: str, title: str, count: int, height: int, width: int) -> UInt8:
    """The frames, uint8 (count, height, width, 3), of a bare stream in FFmpeg's format ``form``.

    title: what messages call it, with its article.

    Raises DataError for bytes that are no such stream; one of larger pictures is given up before it is decoded, one of
    other frames at the first of them.
    """
    frames = np.empty((count, height, width, 3), np.uint8)

    def pixels(frame: Any) -> UInt8:
        found: UInt8 = frame.to_ndarray(format="rgb24")
        return found

    for number, found in enumerate(_decoded(data, form, title, count, height, width, pixels)):
        frames[number] = found
    return frames


def _options(codec: str, side: int, quality: Mapping[str, str], group: int = 0) -> dict[str, str]:
    """quality: the encoder's own words for what is coded how well. side: pixels of the shorter side of a frame.

    Bytes are the same from run to run, on one thread, and no encoder speaks of itself.
    """
    keys = f":keyint={group}" if group else ""
    if codec == "h264":  # with its macroblock tree x264 gives other bytes for the same small frames from run to run
        return {"preset": "medium", **quality, "x264-params": f"mbtree=0{keys}"}
    if codec == "h265":
        # A frame of one coding tree unit, and its macroblock tree in small frames, make x265 read what it never wrote.
        unit = 32 if side >= 64 else 16
        own = f"log-level=none:info=0:pools=none:frame-threads=1:no-cutree=1:ctu={unit}{keys}"
        if quality.get("preset") == "placebo" and unit == 16:  # it splits oftener than such a unit can be
            own += ":tu-intra-depth=3:tu-inter-depth=3"
        return {"preset": "medium", **quality, "x265-params": own}
    return {"preset": "6", **quality, "svtav1-params": f"lp=1{keys}"}


def _without_messages(stream: bytes) -> bytes:
    """An Annex B stream less its supplemental messages (NAL unit type 6), which no decoder needs."""
    start = b"\x00\x00\x01"
    units = stream.split(start)[1:]
    # A unit never ends in a zero byte: zeros there belong to the next start code.
    units = [unit.rstrip(b"\x00") for unit in units]
    return b"".join(b"\x00" + start + unit for unit in units if unit and unit[0] & 31 != 6)


def _encode(
    frames: Iterable[Any], height: int, width: int, form: str, encoder: str, options: Mapping[str, str]
) -> bytes:
    """form: FFmpeg's name of the pixels that the frames have."""
    if encoder == CODECS["av1"].encoder:
        os.environ.setdefault("SVT_LOG", "1")  # errors alone: it would tell its settings on stderr
    codec: Any = av.CodecContext.create(encoder, "w")
    codec.height, codec.width = height, width
    codec.framerate = 25
    codec.time_base = 1 / codec.framerate
    codec.pix_fmt = form
    codec.thread_count = 1  # the bytes do not depend on the machine's cores
    codec.options = dict(options)
    with _scheduled_as_before():
        codec.open()
    packets: list[Any] = []
    for number, frame in enumerate(frames):
        frame.pts = number
        packets += codec.encode(frame)
    packets += codec.encode(None)
    return b"".join(bytes(packet) for packet in packets)


_THREADS = "/proc/self/task"


@contextmanager
def _scheduled_as_before() -> Iterator[None]:
    """This thread, and those that are started inside, on the scheduling policy that this thread has.

    SVT-AV1, where root runs it, puts both on real-time priority and leaves them there. Threads of torch that wait for
    each other by spinning would then keep every other process off the cores.
    """
    if not os.path.isdir(_THREADS):  # not Linux
        yield
        return
    policy, priority, before = os.sched_getscheduler(0), os.sched_getparam(0), set(os.listdir(_THREADS))
    try:
        yield
    finally:
        for thread in ("0", *(set(os.listdir(_THREADS)) - before)):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setscheduler(int(thread), policy, priority)


_BLOCK = 64
"""Up to a multiple of which codecs code sides that they then cut off."""


def _decoded(
    data: bytes, form: str, title: str, count: int, height: int, width: int, take: Callable[[Any], Values]
) -> Iterator[Values]:
    """What is taken of ``count`` frames of that size, neither more nor fewer. Raises DataError."""
    other = f"{title} stream of other than {count} frames of {height}x{width}"
    most = [-(-side // _BLOCK) * _BLOCK for side in (width, height)]
    done = 0
    try:
        if any(wide > most[0] or high > most[1] for wide, high in coded_sizes(data, form)):
            raise DataError(other)
        # Of what a frame's own head asks for; and what is damaged is not made up.
        limit = {"max_pixels": str(most[0] * most[1]), "err_detect": "explode"}
        with av.open(io.BytesIO(data), mode="r", format=form, options=limit) as container:
            container.streams.video[0].codec_context.options = limit
            container.streams.video[0].codec_context.thread_count = 1  # to start others takes longer than a clip does
            for frame in container.decode(video=0):
                if done == count or (frame.height, frame.width) != (height, width):
                    raise DataError(other)
                yield take(frame)
                done += 1
    except (FFmpegError, OSError, ValueError, IndexError) as error:
        raise DataError(f"not a readable {title.split()[-1]} stream ({first_line(error)})") from error
    if done < count:
        raise DataError(f"{title} stream of {done} frames where {count} are due")
