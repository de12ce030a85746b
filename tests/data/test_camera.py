"""A camera gives its newest sample, at its own pace, and counts those that nobody took."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

import semcodec
from semcodec.data.camera import Camera
from semcodec.data.camera_names import is_camera
from semcodec.errors import DataError, UsageError
from semcodec.specs import BOXES, InputRequest

IMAGE, CLIP = InputRequest(None, 32, 32), InputRequest(4, 32, 32)
FRAMES = 40


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Frames that are as bright as they are late: number n is of about 6 n."""
    path = tmp_path_factory.mktemp("film") / "film.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for number in range(FRAMES):
            picture = np.full((32, 64, 3), 6 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def pipe(folder: Path, film: Path, seconds: float) -> str:
    """A named pipe into which the film is written, over so many seconds."""
    path, data = folder / "camera", film.read_bytes()
    os.mkfifo(path)

    def write() -> None:
        try:
            with path.open("wb", buffering=0) as file:
                for start in range(0, len(data), 1 + len(data) // 40):
                    file.write(data[start : start + 1 + len(data) // 40])
                    time.sleep(seconds / 40)
        except BrokenPipeError:
            pass

    threading.Thread(target=write, daemon=True).start()
    return str(path)


def number(sample) -> int:
    return round(float(sample.pixels.mean()) / 6)


def test_what_is_a_camera(tmp_path, film):
    os.mkfifo(tmp_path / "pipe")
    for text in ("-", "rtsp://10.0.0.1/live", "udp://:1234", "/dev/null", str(tmp_path / "pipe")):
        assert is_camera(text), text
    for text in (str(film), str(tmp_path), "digits-scenes:0", "digits-scenes", "nothing", "a\0b"):
        assert not is_camera(text), text


def test_images_come_in_order_each_once_and_the_slow_miss_some(tmp_path, film):
    with semcodec.open_camera(pipe(tmp_path, film, 1.0), IMAGE) as camera:
        seen = []
        for sample in camera:
            seen.append(number(sample))
            assert sample.pixels.shape == (1, 32, 32, 3)
            assert sample.size is None
            time.sleep(0.1)
    assert seen == sorted(set(seen))
    assert camera.captured == FRAMES
    assert len(seen) + camera.dropped == FRAMES
    assert camera.dropped > 5
    assert seen[-1] == FRAMES - 1, "the newest is given"


def test_a_detector_is_told_the_size_of_the_source(film):
    camera = Camera(f"file://{film}", InputRequest(None, 32, 32, fit="letterbox", labels=BOXES))
    assert next(camera).size == (64, 32)
    camera.close()
    with pytest.raises(StopIteration):
        next(camera)


@pytest.mark.parametrize(
    ("window", "stride", "expected"),
    [
        (None, None, [[0, 5, 10, 15], [16, 21, 26, 31]]),
        (4, 2, [[n, n + 1, n + 2, n + 3] for n in range(0, 37, 2)]),
        (4, 10, [[n, n + 1, n + 2, n + 3] for n in (0, 10, 20, 30)]),
    ],
)
def test_clips_are_windows_over_time(tmp_path, film, window, stride, expected):
    """As of ``--window`` and ``--stride`` of files; here they are taken as fast as they come."""
    camera = Camera(pipe(tmp_path, film, 1.5), CLIP, window=window, stride=stride)
    seen = [[round(float(frame.mean()) / 6) for frame in sample.pixels[0]] for sample in camera]
    missing = len(expected) - len(seen)
    assert camera.captured == len(expected)
    assert missing == camera.dropped
    spread = [[clip[0], *clip[1:]] for clip in expected]
    for clip in seen:
        assert min(max(abs(a - b) for a, b in zip(clip, due, strict=True)) for due in spread) <= 1


def test_what_cannot_be_read_is_one_line(tmp_path, film):
    with pytest.raises(DataError, match=r"file:///nothing.*cannot be read as video"):
        Camera("file:///nothing.ts", IMAGE)
    with pytest.raises(UsageError, match="the model takes images"):
        Camera(f"file://{film}", IMAGE, window=4)
    short = tmp_path / "short.ts"
    short.write_bytes(film.read_bytes())
    camera = Camera(f"file://{short}", CLIP, window=1000)
    with pytest.raises(DataError, match="before there was one sample"):
        next(camera)
