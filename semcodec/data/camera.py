"""A camera, or another address that FFmpeg reads as video, as samples over time of which the newest is given."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from semcodec._pyav import FFmpegError, av
from semcodec.data.frames import MOST_PIXELS, UInt8, upright
from semcodec.data.images import fit
from semcodec.data.inputs import Input
from semcodec.data.video import SAMPLING_RATE, sample_frame_indices
from semcodec.errors import DataError, UsageError, first_line
from semcodec.specs import InputRequest

OPEN_S = 10.0
"""For an address of the network to answer, and for its next frame to come."""


class Camera:
    """Samples of a camera: iterating gives the newest that was not given yet, and waits for the next one.

    Frames are read in a thread, at the camera's pace, whoever asks. For a model of images a sample is a frame, for one
    of clips a window over time: ``window`` frames, of which it takes as many as it wants; a window begins ``stride``
    frames after the one before. Without them: every fourth frame, and windows that follow each other.

    captured, dropped: samples so far, and those in whose place a newer one was given. Raises DataError where nothing
    can be read.
    """

    def __init__(
        self, address: str, request: InputRequest, *, window: int | None = None, stride: int | None = None
    ) -> None:
        if request.frames is None and (window is not None or stride is not None):
            raise UsageError(f"{address}: the model takes images; windows are of clips")
        self.address, self.request = address, request
        self.window = window or (1 if request.frames is None else request.frames * SAMPLING_RATE)
        self.stride = stride or self.window
        self.captured = self.dropped = 0
        self._newest: Input | None = None
        self._error: Exception | None = None
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()
        self._container, self._stream = self._open()
        self._thread = threading.Thread(target=self._read, name="semcodec-camera", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Input]:
        return self

    def __next__(self) -> Input:
        with self._changed:
            while self._newest is None and not self._ended:
                self._changed.wait()
            newest, self._newest = self._newest, None
            if newest is not None:
                return newest
            if self._error is not None:
                raise self._error
            raise StopIteration

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Read no more; who waits for a sample gets none."""
        with self._changed:
            self._closed = self._ended = True
            self._changed.notify_all()

    def _open(self) -> tuple[Any, Any]:
        form = "v4l2" if self.address.startswith("/dev/video") else None
        options = {"max_pixels": str(MOST_PIXELS)}
        if self.address.startswith("rtsp://"):
            options["rtsp_transport"] = "tcp"
        source: Any = sys.stdin.buffer if self.address == "-" else self.address
        timeout = None if self.address == "-" else OPEN_S
        try:
            container = av.open(source, format=form, options=options, timeout=timeout)
        except (FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise DataError(f"{self.address}: cannot be read as video ({reason})") from error
        if not container.streams.video:
            container.close()
            raise DataError(f"{self.address}: has no video stream")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            container.close()
            raise DataError(f"{self.address}: its video codec is unknown here")
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        return container, stream

    def _read(self) -> None:
        try:
            self._frames()
        except (FFmpegError, OSError, ValueError, DataError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            self._error = DataError(f"{self.address}: cannot be read any more ({reason})")
        finally:
            self._container.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _frames(self) -> None:
        """Frames as they come. Of a window those alone are held that some window takes."""
        count = self.request.frames or 1
        picks = [int(i) for i in sample_frame_indices(self.window, count, max(SAMPLING_RATE, self.window))]
        held: deque[tuple[int, UInt8]] = deque()
        size: tuple[int, int] | None = None
        begun = time.monotonic()
        start = 0
        for number, frame in enumerate(self._container.decode(self._stream)):
            if self._closed:
                return
            if any((number - i) % self.stride == 0 and number >= i for i in picks) and number >= start:
                picture = upright(frame, self._stream)
                size = picture.size if self.request.placed and self.request.frames is None else None
                held.append((number, fit(picture, self.request)))
            if number == start + picks[-1]:
                at = dict(held)
                pixels = np.stack([at[start + i] for i in picks])
                self._give(pixels if self.request.frames else pixels[0], size, time.monotonic() - begun)
                start += self.stride
                while held and held[0][0] < start:
                    held.popleft()
        if not self.captured:
            raise DataError("it ended before there was one sample")

    def _give(self, pixels: UInt8, size: tuple[int, int] | None, second: float) -> None:
        sample = Input(pixels[None], None, None, f"{self.address}@{second:.2f}s", size)
        with self._changed:
            self.captured += 1
            self.dropped += self._newest is not None
            self._newest = sample
            self._changed.notify_all()
