"""Clips from video files, and H.264 in memory, through PyAV."""

from __future__ import annotations

import hashlib
import heapq
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec._files import read_regular, whole_file
from semcodec._video_heads import coded_sizes
from semcodec.data.frames import decode, frame_at, second_of, survey, walk
from semcodec.data.notes import note
from semcodec.data.parts import Part
from semcodec.data.pyav import FFmpegError, av
from semcodec.errors import DataError, UsageError, first_line
from semcodec.specs import InputRequest

UInt8 = npt.NDArray[np.uint8]

SAMPLING_RATE = 4  # VideoMAE's: every fourth frame, so that 16 frames span 64


def sample_frame_indices(total: int, frames: int, rate: int = SAMPLING_RATE) -> npt.NDArray[np.int64]:
    """Which of ``total`` frames make a clip: int64 (frames,), ascending.

    VideoMAE's dense sampling, one clip in the middle: ``frames`` indices spread over ``frames * rate`` frames.
    A video shorter than that is spanned whole; frames repeat only where it has fewer than ``frames``.
    """
    span = min(frames * rate, total)
    start = (total - span) // 2
    indices = np.linspace(start, start + span, num=frames)
    return np.clip(indices, start, start + span - 1).astype(np.int64)


def read_clip(path: str | os.PathLike[str], request: InputRequest) -> UInt8:
    """A clip of a video file as a model sees it: uint8 (frames, height, width, 3), RGB.

    Frames after ``sample_frame_indices``, counted as the decoder gives them, upright, with square pixels, resized and
    cropped after ``request``. Only frames up to the last one wanted are decoded, a long file from a key frame before
    the first one on where its time stamps can be trusted, and only the resized ones are kept. Of a recording that was
    cut between key frames the clip is what can be decoded, and a ``DataNote`` says what was lost.
    Raises DataError for a file that is missing, broken, truncated or no video.
    """
    return _read_clip(path, request)[0]


def read_only_clip(path: str | os.PathLike[str], request: InputRequest) -> UInt8:
    """``read_clip`` where it stands for the whole file: a ``DataNote`` says so of a long one."""
    clip, _, total = _read_clip(path, request)
    assert request.frames is not None
    if total > 2 * request.frames * SAMPLING_RATE:
        note(
            f"{path}: one clip of {request.frames} frames stands for all of its {total:,}, from its middle; "
            "windows (--window) give one for each part of it"
        )
    return clip


def _read_clip(path: str | os.PathLike[str], request: InputRequest) -> tuple[UInt8, int, int]:
    """The clip, how many frames of the file are lost, and how many there are."""
    if not os.path.isfile(path):
        raise DataError(f"no such video file: {path}")
    assert request.frames is not None
    found = survey(path)
    lost = found.lost
    while found.total:
        picks = [int(i) for i in sample_frame_indices(found.total, request.frames)]
        clip, seen = decode(path, picks, found, request)
        if clip.keys() >= set(picks):
            _note_lost(path, lost, found.total)
            return np.stack([clip[i] for i in picks]), lost, found.total
        if seen >= found.total:
            break
        # Fewer frames than packets, as in some AVI files: count what was decoded.
        lost += found.total - seen if found.keyless else 0
        found = found._replace(total=seen, stamps=None)
    raise DataError(f"{path}: no frame of its video can be decoded; the file is broken or empty")


# Windows


def _note_lost(path: str | os.PathLike[str], lost: int, total: int) -> None:
    """Say that frames are lost, if any are."""
    if lost:
        note(
            f"{path}: {lost} of its {lost + total} frames are lost, as the recording does not begin with a key frame; "
            f"the clip is of the other {total}"
        )


def read_windows(path: str | os.PathLike[str], request: InputRequest, part: Part) -> Iterator[tuple[float, UInt8]]:
    """Clips of a part of a video file, one after the other: when each begins, in seconds, and uint8 as ``read_clip``.

    The file is decoded once, and of its frames those alone are held that windows which overlap there take. A last
    window that the file ends within is left out, unless it is the only one. Raises DataError as ``read_clip``, and
    where the part begins behind the file's end.
    """
    if not os.path.isfile(path):
        raise DataError(f"no such video file: {path}")
    assert request.frames is not None
    found = survey(path)
    _note_lost(path, found.lost, found.total)
    first = frame_at(path, part.start, found) if part.start else 0
    end = found.total if part.duration is None else min(found.total, frame_at(path, part.start + part.duration, found))
    if first >= found.total:
        length = second_of(path, max(0, found.total - 1), found)
        raise DataError(f"{path}: its last frame is shown at {length:.1f} s, before the start at {part.start:g} s")
    window = min(part.window or end - first, end - first) or 1
    stride = part.stride or window
    picks = [i.item() for i in sample_frame_indices(window, request.frames, max(SAMPLING_RATE, window))]
    starts = range(first, max(first, end - window) + 1, stride)
    held: dict[int, UInt8] = {}
    last = -1
    frames = walk(path, _wanted(starts, picks), found, request)
    for start in starts:
        while last < start + picks[-1]:
            try:
                last, pixels = next(frames)
            except StopIteration:
                if start == first:
                    raise DataError(f"{path}: no frame there can be decoded; the file is broken or empty") from None
                return
            held[last] = pixels
        yield second_of(path, start, found), np.stack([held[start + i] for i in picks])
        held = {number: pixels for number, pixels in held.items() if number >= start + stride}


def _wanted(starts: Sequence[int], picks: Sequence[int]) -> Iterator[int]:
    """The frames that any window takes, each once, rising: windows begin at ``starts``, and take ``picks`` from it."""
    waiting: list[int] = []
    queued: set[int] = set()
    for start, after in zip(starts, [*starts[1:], None], strict=True):
        for number in {start + i for i in picks} - queued:
            heapq.heappush(waiting, number)
            queued.add(number)
        while waiting and (after is None or waiting[0] < after):
            number = heapq.heappop(waiting)
            queued.discard(number)
            yield number


# The cache of decoded clips

_CLIPS = 3
"""Version of how clips are read, so that those of an earlier one, wrong in places, are not used again."""


def cache_dir() -> Path | None:
    """Where derived files may be kept: ``SEMCODEC_CACHE``, else ``~/.cache/semcodec``; None if set to nothing."""
    named = os.environ.get("SEMCODEC_CACHE")
    if named is not None:
        return Path(named) if named else None
    try:
        return Path.home() / ".cache" / "semcodec"
    except RuntimeError:  # no home directory
        return None


def cached_clip(path: str | os.PathLike[str], request: InputRequest) -> UInt8:
    """``read_clip`` that decodes a file once: the clip is kept under ``cache_dir() / "clips"``.

    A file that changed is decoded anew, and so is one that has lost frames, to say so again. A cache that cannot be
    written or read is done without.
    """
    folder = cache_dir()
    if folder is None or not os.path.isfile(path):
        return _read_clip(path, request)[0]
    stat = os.stat(path)
    key = repr((_CLIPS, os.path.realpath(path), stat.st_mtime_ns, stat.st_size, request, SAMPLING_RATE))
    kept = folder / "clips" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    kept_clip = _kept_clip(kept, request.shape)
    if kept_clip is not None:
        return kept_clip
    clip, lost, _ = _read_clip(path, request)
    if lost:
        return clip
    with suppress(OSError, UsageError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        if kept.is_file() or not kept.exists():  # nobody reads what goes into a pipe
            with whole_file(kept) as file:
                np.save(file, clip)
    return clip


def _kept_clip(kept: Path, shape: tuple[int, ...]) -> UInt8 | None:
    """A clip that ``np.save`` wrote, byte for byte as it writes one of this shape, or None."""
    head = io.BytesIO()
    due = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, due)  # type: ignore[no-untyped-call]
    size = len(head.getvalue()) + math.prod(shape)
    try:
        content = read_regular(kept, size)
    except OSError:
        return None
    if len(content) != size or not content.startswith(head.getvalue()):
        return None
    return np.frombuffer(bytearray(content), np.uint8, offset=size - math.prod(shape)).reshape(shape)


# H.264, the baseline that clips are compared with


def encode_h264(frames: UInt8, crf: int, preset: str = "medium") -> bytes:
    """x264 at constant quality ``crf`` (0..51, lower is better) of a clip, uint8 (T, H, W, 3).

    A bare Annex B stream, all that a decoder needs: no container (about a kilobyte for MP4), and without the
    message of some 700 bytes in which x264 names its settings. 4:2:0, so both sides must be even.
    """
    count, height, width = frames.shape[:3]
    if not count or not 0 <= crf <= 51:
        raise DataError(f"H.264 takes at least one frame and a crf of 0 to 51, not {count} frames and {crf}")
    if height % 2 or width % 2:
        raise DataError(f"H.264 in 4:2:0 takes frames with even sides, not {height}x{width}")
    # With its macroblock tree x264 gives other bytes for the same small frames from run to run.
    options = {"crf": str(crf), "preset": preset, "x264-params": "mbtree=0"}
    return _without_messages(encode_frames(frames, "libx264", options))


def _without_messages(stream: bytes) -> bytes:
    """An Annex B stream less its supplemental messages (NAL unit type 6), which no decoder needs."""
    start = b"\x00\x00\x01"
    units = stream.split(start)[1:]
    # A unit never ends in a zero byte: zeros there belong to the next start code.
    units = [unit.rstrip(b"\x00") for unit in units]
    return b"".join(b"\x00" + start + unit for unit in units if unit and unit[0] & 31 != 6)


def decode_h264(data: bytes, count: int, height: int, width: int) -> UInt8:
    """The frames, uint8 (count, height, width, 3), of ``encode_h264``.

    Raises DataError for bytes that are no such stream; one of other frames is given up at the first of them.
    """
    return decode_frames(data, "h264", "an H.264", count, height, width)


# Any of FFmpeg's codecs


def planar(pixels: UInt8) -> Any:
    """A frame in 4:2:0 of RGB pixels (H, W, 3)."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="yuv420p")


def encode_frames(frames: UInt8, encoder: str, options: Mapping[str, str]) -> bytes:
    """The packets of one of FFmpeg's encoders, one after the other: frames uint8 (T, H, W, 3), coded in 4:2:0."""
    codec: Any = av.CodecContext.create(encoder, "w")
    codec.height, codec.width = frames.shape[1:3]
    codec.framerate = 25
    codec.time_base = 1 / codec.framerate
    codec.pix_fmt = "yuv420p"
    codec.thread_count = 1  # the bytes do not depend on the machine's cores
    codec.options = dict(options)
    with _scheduled_as_before():
        codec.open()
    packets: list[Any] = []
    for number, pixels in enumerate(frames):
        frame = planar(pixels)
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


def decode_frames(data: bytes, form: str, title: str, count: int, height: int, width: int) -> UInt8:
    """The frames, uint8 (count, height, width, 3), of a bare stream in FFmpeg's format ``form``.

    title: what messages call it, with its article.

    Raises DataError for bytes that are no such stream; one of larger pictures is given up before it is decoded, one of
    other frames at the first of them.
    """
    other = f"{title} stream of other than {count} frames of {height}x{width}"
    most = [-(-side // _BLOCK) * _BLOCK for side in (width, height)]
    frames = np.empty((count, height, width, 3), np.uint8)
    done = 0
    try:
        if any(wide > most[0] or high > most[1] for wide, high in coded_sizes(data, form)):
            raise DataError(other)
        limit = {"max_pixels": str(most[0] * most[1])}  # for what a frame's own head asks for
        with av.open(io.BytesIO(data), mode="r", format=form, options=limit) as container:
            container.streams.video[0].codec_context.options = limit
            for frame in container.decode(video=0):
                if done == count or (frame.height, frame.width) != (height, width):
                    raise DataError(other)
                frames[done] = frame.to_ndarray(format="rgb24")
                done += 1
    except (FFmpegError, OSError, ValueError, IndexError) as error:
        raise DataError(f"not a readable {title.split()[-1]} stream ({first_line(error)})") from error
    if done < count:
        raise DataError(f"{title} stream of {done} frames where {count} are due")
    return frames
