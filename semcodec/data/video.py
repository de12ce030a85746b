"""Clips from video files, through PyAV."""

from __future__ import annotations

import hashlib
import heapq
import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semcodec._cache import cache_folder
from semcodec._files import read_regular, whole_file
from semcodec.data.frames import decode, frame_at, second_of, survey, walk
from semcodec.data.notes import note
from semcodec.data.parts import Part
from semcodec.errors import DataError, UsageError
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


def cached_clip(path: str | os.PathLike[str], request: InputRequest) -> UInt8:
    """``read_clip`` that decodes a file once: the clip is kept in the user's cache.

    A file that changed is decoded anew, and so is one that has lost frames, to say so again. A cache that cannot be
    written or read is done without.
    """
    folder = cache_folder("clips")
    if folder is None or not os.path.isfile(path):
        return _read_clip(path, request)[0]
    stat = os.stat(path)
    key = repr((_CLIPS, os.path.realpath(path), stat.st_mtime_ns, stat.st_size, request, SAMPLING_RATE))
    kept = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
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


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from semcodec._moved import moved_name

        return moved_name(__name__, name)
