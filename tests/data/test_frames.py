"""Frames of video files are those that the decoder gives, shown as a player shows them."""

from __future__ import annotations

import os
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from semcodec.data import frames
from semcodec.data.notes import DataNote
from semcodec.data.orientation import of_matrix
from semcodec.data.video import cached_clip, read_clip, sample_frame_indices
from semcodec.errors import DataError
from semcodec.specs import InputRequest

CLIP = InputRequest(4, 16, 16)
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
"""By EXIF's number of an orientation, a b c d of the display matrix that shows it upright."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(path: Path, pictures: list[np.ndarray], codec: str = "libx264", aspect: int | Fraction = 1, **options: str):
    """A video of uint8 (H, W, 3) pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = 4_000_000
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def greys(count: int) -> np.ndarray:
    """The level of frame n tells n."""
    return 16 + np.arange(count) * (220 / max(1, count - 1))


def grey_pictures(levels: np.ndarray) -> list[np.ndarray]:
    return [np.full((32, 48, 3), round(level), np.uint8) for level in levels]


def copy_from(source: Path, target: Path, first: int) -> Path:
    """The packets of a video from number ``first`` on, as a recorder that is cut anywhere leaves them."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(p for p in read.demux(read.streams.video[0]) if p.size):
            if number >= first:
                packet.stream = stream
                written.mux(packet)
    return target


# The decoder's order


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".mov"])
@pytest.mark.parametrize("options", [{"bf": "3", "b-pyramid": "normal"}, {"bf": "2"}, {"bf": "0"}, {"bf": "16"}])
def test_frames_are_numbered_as_the_decoder_gives_them(tmp_path, suffix, options):
    levels = greys(48)
    path = write(tmp_path / f"v{suffix}", grey_pictures(levels), crf="5", **options)
    clip = read_clip(path, InputRequest(12, 16, 16))
    assert np.abs(clip.mean((1, 2, 3)) - levels[sample_frame_indices(48, 12)]).max() < 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_so_they_are_far_into_a_file(tmp_path, suffix):
    levels = 20 + np.arange(400) % 200
    path = write(tmp_path / f"v{suffix}", grey_pictures(levels), crf="5", bf="3", g="40", preset="veryfast")
    clip = read_clip(path, InputRequest(8, 16, 16))
    assert np.abs(clip.mean((1, 2, 3)) - levels[sample_frame_indices(400, 8)]).max() < 2


def test_stamps_that_the_decoder_does_not_follow_are_not_believed(tmp_path):
    """A file whose stamps are those of decoding, though its frames are shown in another order."""
    levels = 20 + np.arange(400) % 200
    good = write(tmp_path / "good.mkv", grey_pictures(levels), crf="5", bf="3", g="40", preset="veryfast")
    wrong = tmp_path / "wrong.mkv"
    with av.open(str(good)) as read, av.open(str(wrong), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(p for p in read.demux(read.streams.video[0]) if p.size):
            packet.pts = packet.dts = number * 40
            packet.stream = stream
            written.mux(packet)
    clip = read_clip(wrong, InputRequest(8, 16, 16))
    assert np.abs(clip.mean((1, 2, 3)) - levels[sample_frame_indices(400, 8)]).max() < 2


def test_clips_that_an_earlier_version_kept_are_not_used(tmp_path, monkeypatch):
    path = write(tmp_path / "v.mp4", grey_pictures(greys(20)))
    monkeypatch.setattr("semcodec.data.video._CLIPS", 2)
    cached_clip(path, CLIP)
    [kept] = Path(os.environ["SEMCODEC_CACHE"]).rglob("*.npy")
    np.save(kept, np.zeros(CLIP.shape, np.uint8))
    assert not cached_clip(path, CLIP).any()
    monkeypatch.undo()
    monkeypatch.setenv("SEMCODEC_CACHE", str(kept.parent.parent))
    assert np.array_equal(cached_clip(path, CLIP), read_clip(path, CLIP))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\0v\0{'descr': [", b"PK\x03\x04", b"\x80\x04."])
def test_a_cache_that_cannot_be_read_is_made_anew(tmp_path, content):
    path = write(tmp_path / "v.mp4", grey_pictures(greys(20)))
    first = cached_clip(path, CLIP)
    [kept] = Path(os.environ["SEMCODEC_CACHE"]).rglob("*.npy")
    kept.write_bytes(content)
    assert np.array_equal(cached_clip(path, CLIP), first)
    assert np.array_equal(np.load(kept), first)


# Recordings that were cut


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [("libx264", {"bf": "0"}), ("libx264", {"bf": "2"}), ("mpeg4", {"sc_threshold": "1000000000"})],
)
def test_of_a_recording_cut_between_key_frames_what_decodes_is_used(tmp_path, suffix, codec, options):
    levels = greys(60)
    whole = write(tmp_path / f"whole{suffix}", grey_pictures(levels), codec, g="20", keyint_min="20", **options)
    with av.open(str(whole)) as container:
        keys = [p.is_keyframe for p in container.demux(container.streams.video[0]) if p.size]
    first = keys.index(True, 7)
    cut = copy_from(whole, tmp_path / f"cut{suffix}", 7)
    with pytest.warns(DataNote, match=f"cut{suffix}: {first - 7} of its 53 frames are lost") as notes:
        clip = read_clip(cut, InputRequest(8, 16, 16))
    assert len(notes) == 1 and "\n" not in str(notes[0].message)
    assert np.abs(clip.mean((1, 2, 3)) - levels[first:][sample_frame_indices(60 - first, 8)]).max() < 3
    for _ in range(2):  # and it is said again, whatever is kept
        with pytest.warns(DataNote, match="are lost"):
            assert np.array_equal(cached_clip(cut, InputRequest(8, 16, 16)), clip)


def test_of_a_whole_recording_nothing_is_said(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_clip(write(tmp_path / "v.mp4", grey_pictures(greys(60)), g="20"), CLIP)


def test_a_recording_without_a_key_frame_is_one_line(tmp_path):
    whole = write(tmp_path / "whole.mkv", grey_pictures(greys(30)), g="100")
    with pytest.raises(DataError, match="no frame of its video can be decoded"):
        read_clip(copy_from(whole, tmp_path / "cut.mkv", 9), CLIP)


# How frames are shown


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_videos_are_turned_and_mirrored_upright(tmp_path, suffix, orientation):
    corners = np.zeros((64, 96, 3), np.uint8)
    corners[:32, :48], corners[:32, 48:], corners[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(corners)
    picture.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(picture)).astype(int)
    a, b, c, d = (value << 16 for value in MATRICES[orientation])
    plain, path = write(tmp_path / "plain.mp4", [corners], crf="1"), tmp_path / f"v{suffix}"
    with av.open(str(plain)) as read, av.open(str(path), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for packet in read.demux(read.streams.video[0]):
            if packet.size:
                packet.stream = stream
                written.mux(packet)
    found = read_clip(path, InputRequest(1, *expected.shape[:2]))[0]
    assert np.abs(found.astype(int) - expected).mean() < 8


def test_what_lies_between_is_the_nearest():
    assert of_matrix([0] * 9) == 1
    for degrees, expected in ((0, 1), (30, 1), (60, 6), (90, 6), (170, 3), (-100, 8)):
        turn = np.exp(1j * np.deg2rad(degrees)) * (1 << 16)
        assert of_matrix([int(turn.real), int(turn.imag), 0, int(-turn.imag), int(turn.real), 0, 0, 0, 1]) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (48, 48)), (Fraction(1, 2), (48, 48)), (Fraction(4, 3), 0)])
def test_pixels_that_are_not_square_are_made_so(tmp_path, suffix, aspect, size):
    """A square of 24 by 24 in what is shown stays one."""
    scale_x, scale_y = (aspect, 1) if aspect > 1 else (1, 1 / aspect)
    wide, high = round(96 / scale_x), round(96 / scale_y)
    coded = np.zeros((high, wide, 3), np.uint8)
    rows = slice(round(36 / scale_y), round(60 / scale_y))
    coded[rows, round(36 / scale_x) : round(60 / scale_x)] = 255
    found = read_clip(write(tmp_path / f"v{suffix}", [coded], crf="1", aspect=aspect), InputRequest(1, 96, 96))[0]
    lit = found[..., 0] > 128
    assert abs(int(lit.any(0).sum()) - 24) <= 2 and abs(int(lit.any(1).sum()) - 24) <= 2


def test_an_absurd_shape_of_pixels_takes_no_memory():
    wide = frames._square(Image.new("RGB", (4000, 2000)), 65535.0)
    assert wide.size == (4000, 1)
    assert frames._square(Image.new("RGB", (2000, 4000)), 1 / 65535).size == (1, 4000)


def test_frames_of_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = write(tmp_path / "v.mp4", grey_pictures(greys(3)))
    monkeypatch.setattr("semcodec.data.frames.MOST_PIXELS", 32 * 48 - 1)
    with pytest.raises(DataError) as error:
        read_clip(path, CLIP)
    assert "48x32" in str(error.value) and "\n" not in str(error.value)
