"""Data sets give the same pixels everywhere, and no file, however bad, gives more than one line."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from semcodec.cli import main
from semcodec.coding.videos import decode_h264, encode_h264
from semcodec.data.base import Digest
from semcodec.data.datasets import open_dataset, rows
from semcodec.data.description import describe
from semcodec.data.folders import ClassFolders
from semcodec.data.images import read_image
from semcodec.data.inputs import open_input
from semcodec.data.scenes import DigitsScenes
from semcodec.data.textures import TRAIN_DIGITS, digit_images, hash64, seeds_for, texture, uniform, upsample
from semcodec.data.video import cached_clip, read_clip, sample_frame_indices
from semcodec.errors import DataError, SemcodecError, UsageError
from semcodec.specs import InputRequest

SCENE, CLIP = InputRequest(None, 96, 96), InputRequest(4, 16, 16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path_factory.mktemp("cache")))


def entropy(values: np.ndarray) -> float:
    p = np.bincount(values.ravel(), minlength=256) / values.size
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def grey_levels(count: int) -> np.ndarray:
    """The level of frame n tells n, with room for what H.264 loses."""
    return 16 + np.arange(count) * (220 / max(1, count - 1))


def write_video(path: Path, levels: np.ndarray, height: int = 32, width: int = 48, **options: str) -> Path:
    muxing = {"movflags": options.pop("movflags")} if "movflags" in options else {}
    with av.open(str(path), "w", options=muxing) as container:
        codec = {".avi": "mpeg4", ".mpg": "mpeg1video"}.get(path.suffix, "libx264")
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec != "libx264":
            stream.bit_rate = 4_000_000
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), round(level), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def one_line(error: pytest.ExceptionInfo[DataError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# Textures and digits


def test_hash_is_splitmix64():
    # The first outputs of the reference implementation, seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert hash64(1234567, [1, 2, 3, 4]).tolist() == expected


def test_uniform_numbers_are_uniform_and_independent_of_the_batch():
    seeds = seeds_for(3, np.arange(2000))
    u = uniform(seeds, 8, salt=1)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.bincount((u.ravel() * 20).astype(int), minlength=20)
    assert ((counts - 800) ** 2 / 800).sum() < 43.8  # chi-squared with 19 degrees of freedom, p = 0.001
    assert np.abs(np.corrcoef(u.T) - np.eye(8)).max() < 0.1
    assert np.array_equal(uniform(seeds[7:9], 8, salt=1), u[7:9])
    assert np.abs(np.corrcoef(u[:, 0], uniform(seeds, 8, salt=2)[:, 0])[0, 1]) < 0.1


def test_digits_of_train_and_test_are_disjoint_and_complete():
    from sklearn.datasets import load_digits

    (train, train_labels), (test, test_labels) = digit_images("train"), digit_images("test")
    assert train.shape == (TRAIN_DIGITS, 8, 8)
    assert train.dtype == np.float32
    assert len(test) == 500
    assert train.max() == 1
    assert set(train_labels) == set(test_labels) == set(range(10))

    def labelled(images, labels):
        return sorted((int(n), image.tobytes()) for image, n in zip(images, labels, strict=True))

    whole = load_digits()
    everything = labelled((whole.images / 16).astype(np.float32), whole.target)
    assert sorted(labelled(train, train_labels) + labelled(test, test_labels)) == everything


def test_upsampling_keeps_range_mass_and_place():
    image = np.zeros((1, 8, 8), np.float32)
    image[0, 2, 5] = 1
    up = upsample(image, 32)
    assert up.min() >= 0
    assert up.max() <= 1
    assert up.sum() == pytest.approx(16, rel=1e-5)
    y, x = np.indices((32, 32))
    assert (up[0] * y).sum() / 16 == pytest.approx(9.5)
    assert (up[0] * x).sum() / 16 == pytest.approx(21.5)


def test_texture_depends_on_the_seed_alone_and_has_no_flat_areas():
    seeds = seeds_for(9, np.arange(200))
    whole = texture(seeds, 64, 48)
    assert whole.shape == (200, 64, 48, 3)
    assert whole.dtype == np.float32
    assert whole.min() >= 0
    assert whole.max() <= 255
    assert np.array_equal(texture(seeds[150:153], 64, 48), whole[150:153])
    assert not np.array_equal(whole[0], whole[1])
    pixels = np.rint(whole).astype(np.uint8)
    per_picture = [entropy(picture[..., c]) for picture in pixels for c in range(3)]
    assert np.mean(per_picture) >= 6.5
    smooth = np.abs(np.diff(whole, axis=1)).mean()
    assert 2 < smooth < 12  # neighbours resemble each other, yet never fully
    assert texture(seeds[:2], 8, 8, channels=1).shape == (2, 8, 8, 1)


# digits-scenes


def test_scenes_are_the_same_in_every_batch_and_differ_between_splits():
    test = open_dataset("digits-scenes", "test", SCENE)
    assert isinstance(test, DigitsScenes)
    assert (len(test), test.kind, test.classes) == (1000, "image", [str(n) for n in range(10)])
    pixels, labels = test.batch(range(70))
    assert pixels.shape == (70, 96, 96, 3)
    assert (pixels.dtype, labels.dtype) == (np.uint8, np.int64)
    again, same = test.batch([69, 3])
    assert np.array_equal(again, pixels[[69, 3]])
    assert same.tolist() == labels[[69, 3]].tolist()
    train, _ = open_dataset("digits-scenes", "train", SCENE).batch([3])
    assert not np.array_equal(train[0], pixels[3])
    assert test.batch([])[0].shape == (0, 96, 96, 3)
    with pytest.raises(IndexError):
        test.batch([1000])


def test_scene_pixels_never_change():
    """Weights that ship were trained on these pixels; on any machine they must come out as they did then."""
    digest = Digest()
    digest.update(*open_dataset("digits-scenes", "test", SCENE).batch(range(16)))
    assert digest.hexdigest() == "1f7566a182526e24"
    textures = np.rint(texture(seeds_for(1, np.arange(4)), 40, 56)).astype(np.uint8)
    digest = Digest()
    digest.update(textures, np.arange(4))
    assert digest.hexdigest() == "497e2ca542cd5fb9"


def test_scene_boxes_hold_the_digits():
    data = DigitsScenes("test", SCENE)
    indices = list(range(300))
    boxes, labels = data.boxes(indices), data.batch(indices)[1]
    assert {len(b) for b in boxes} == {1, 2, 3}
    assert all(b[0, 0] == label for b, label in zip(boxes, labels, strict=True))
    flat = np.concatenate(boxes)
    low, high = flat[:, 1:3] - flat[:, 3:] / 2, flat[:, 1:3] + flat[:, 3:] / 2
    assert low.min() >= -1e-6
    assert high.max() <= 1 + 1e-6
    assert all((b[1:, 4] < b[0, 4]).all() for b in boxes)  # the main digit is the tallest
    # Ink is darker or brighter than the ground: within its box the main digit stands out, outside nothing does.
    pixels = data.batch(indices)[0].astype(np.float32).mean(-1)
    inside = outside = 0
    for scene, rows_ in zip(pixels, boxes, strict=True):
        strong = np.abs(scene - np.median(scene)) > 75
        mask = np.zeros((96, 96), bool)
        for _, x, y, w, h in rows_ * [1, 96, 96, 96, 96]:
            mask[int(y - h / 2) : round(y + h / 2) + 1, int(x - w / 2) : round(x + w / 2) + 1] = True
        inside, outside = inside + strong[mask].mean(), outside + strong[~mask].mean()
    assert inside > 8 * outside


def test_distractors_cover_little_of_each_other():
    worst = []
    for b in DigitsScenes("test", SCENE).boxes(range(1000)):
        low, high = b[:, 1:3] - b[:, 3:] / 2, b[:, 1:3] + b[:, 3:] / 2
        for i in range(len(b)):
            for j in range(i + 1, len(b)):
                common = np.maximum(0, np.minimum(high[i], high[j]) - np.maximum(low[i], low[j])).prod()
                worst.append(common / b[j, 3:].prod())
    assert max(worst) > 0.02  # they may overlap a little
    assert np.mean(np.array(worst) > 0.3) < 0.01


def test_scenes_are_hard_to_compress_and_quick_to_make():
    data = open_dataset("digits-scenes", "test", SCENE)
    data.batch([0])
    start = time.process_time()
    pixels, labels = data.batch(range(1000))
    assert time.process_time() - start < 3
    assert min(entropy(pixels[..., c]) for c in range(3)) >= 6.5
    assert np.mean([entropy(p[..., c]) for p in pixels for c in range(3)]) >= 6.5
    assert np.bincount(labels, minlength=10).min() >= 50


def test_scenes_refuse_what_they_are_not():
    for request, error, word in ((CLIP, DataError, "digits-motion"), (InputRequest(None, 8, 8), DataError, "24")):
        with pytest.raises(error, match=word):
            open_dataset("digits-scenes", "test", request)
    with pytest.raises(UsageError, match="train and test"):
        open_dataset("digits-scenes", "all", SCENE)


# Clips


@pytest.mark.parametrize(
    ("total", "frames", "expected"),
    [
        (64, 16, [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]),  # VideoMAE's own, at 64 frames
        (16, 16, list(range(16))),
        (4, 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        (1, 4, [0, 0, 0, 0]),
        (1000, 1, [498]),
    ],
)
def test_sampling_follows_videomae(total, frames, expected):
    assert sample_frame_indices(total, frames).tolist() == expected


def test_sampling_is_centred_and_repeats_only_where_it_must():
    for total in range(1, 200):
        picks = sample_frame_indices(total, 16)
        assert 0 <= picks[0] <= picks[-1] < total
        assert (np.diff(picks) >= 0).all()
        assert len(set(picks.tolist())) == min(16, total)
        assert abs(picks[0] - (total - 1 - picks[-1])) <= 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov", ".mpg"])
@pytest.mark.parametrize("total", [3, 10, 64, 90])
def test_a_clip_holds_the_frames_that_were_picked(tmp_path, suffix, total):
    levels = grey_levels(total)
    clip = read_clip(write_video(tmp_path / f"v{suffix}", levels), InputRequest(8, 16, 16))
    assert clip.shape == (8, 16, 16, 3)
    assert clip.dtype == np.uint8
    assert np.abs(clip.mean((1, 2, 3)) - levels[sample_frame_indices(total, 8)]).max() < 2


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_far_into_a_long_file_the_frames_are_still_the_right_ones(tmp_path, suffix):
    levels = 20 + np.arange(700) % 200
    clip = read_clip(write_video(tmp_path / f"long{suffix}", levels, g="50"), InputRequest(8, 16, 16))
    assert np.abs(clip.mean((1, 2, 3)) - levels[sample_frame_indices(700, 8)]).max() < 2


def test_a_clip_is_resized_by_the_shorter_side_and_cropped_at_the_centre(tmp_path):
    frame = np.zeros((64, 128, 3), np.uint8)
    frame[:, :32], frame[:, 32:96], frame[:, 96:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = tmp_path / "v.mp4"
    path.write_bytes(b"")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    clip = read_clip(path, InputRequest(2, 32, 32))
    assert np.abs(clip[:, :, 2:-2].astype(int) - [0, 255, 0]).max() < 12  # the middle square, and nothing else
    wide = read_clip(path, InputRequest(1, 32, 64))[0]
    assert wide[:, 4:12, 0].min() > 230
    assert wide[:, -12:-4, 2].min() > 230


def test_a_video_filmed_upright_is_shown_upright(tmp_path):
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[:, :32] = 255
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the track's display matrix: a quarter turn clockwise
    assert data[at : at + 4] == (1 << 16).to_bytes(4, "big")
    data[at : at + 20] = struct.pack(">5i", 0, 1 << 16, 0, -(1 << 16), 0)
    path.write_bytes(bytes(data))
    clip = read_clip(path, InputRequest(1, 64, 32))[0]
    assert clip[4:28].min() > 240
    assert clip[36:60].max() < 15


def bad_files(folder: Path) -> dict[str, Path]:
    good = write_video(folder / "good.mp4", grey_levels(60), 96, 96, crf="1").read_bytes()
    front = write_video(folder / "front.mp4", grey_levels(60), 96, 96, movflags="faststart", crf="1").read_bytes()
    contents = {
        "empty": b"",
        "text": b"this is no video\n" * 100,
        "noise": np.random.default_rng(0).bytes(20_000),
        "without-index": good[: len(good) * 2 // 3],
        "cut-short": front[: len(front) * 2 // 3],
        "head-only": front[:200],
        "unknown-codec": good.replace(b"avc1", b"zzzz"),
    }
    paths = {}
    for name, data in contents.items():
        paths[name] = folder / f"{name}.mp4"
        paths[name].write_bytes(data)
    paths["audio"] = folder / "audio.wav"
    with av.open(str(paths["audio"]), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return paths


def test_bad_video_files_are_one_line_that_names_the_file(tmp_path, capfd):
    for name, path in bad_files(tmp_path).items():
        with pytest.raises(DataError) as error:
            read_clip(path, InputRequest(8, 16, 16))
        one_line(error, path.name)
        assert name != "audio" or "no video stream" in str(error.value)
    with pytest.raises(DataError) as error:
        read_clip(tmp_path / "absent.mp4", InputRequest(8, 16, 16))
    one_line(error, "absent.mp4", "no such")
    with pytest.raises(DataError):
        read_clip(tmp_path, InputRequest(8, 16, 16))
    assert capfd.readouterr() == ("", "")


def test_damaged_video_files_never_raise_anything_else(tmp_path):
    good = write_video(tmp_path / "v.mp4", grey_levels(20)).read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / "damaged.mp4"
    messages = []
    for trial in range(150):
        data = bytearray(good)
        if trial % 2:
            del data[int(rng.integers(len(data))) :]
        else:
            for at in rng.integers(len(data), size=20):
                data[at] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            assert read_clip(path, InputRequest(4, 16, 16)).shape == (4, 16, 16, 3)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)


def test_only_resized_frames_are_kept(tmp_path):
    """A long large file takes a few frames' memory, not the film's (400 frames of 1280x720: 1.1 GB)."""
    path = write_video(tmp_path / "v.mp4", grey_levels(400), 720, 1280, preset="ultrafast")
    code = (
        "import resource; from semcodec.specs import InputRequest; from semcodec.data.video import read_clip\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"read_clip({str(path)!r}, InputRequest(100, 32, 32))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 150


def test_cache_gives_the_same_clip_without_decoding_and_notices_changes(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", grey_levels(20))
    first = cached_clip(path, InputRequest(4, 16, 16))
    kept = list(Path(os.environ["SEMCODEC_CACHE"]).rglob("*"))
    assert [p.suffix for p in kept if p.is_file()] == [".npy"]
    with monkeypatch.context() as patched:
        patched.setattr("semcodec.data.video.read_clip", lambda *_: pytest.fail("decoded twice"))
        assert np.array_equal(cached_clip(path, InputRequest(4, 16, 16)), first)
    assert cached_clip(path, InputRequest(4, 8, 8)).shape == (4, 8, 8, 3)
    for file in kept:
        if file.is_file():
            file.write_bytes(b"broken")
    assert np.array_equal(cached_clip(path, InputRequest(4, 16, 16)), first)
    write_video(path, grey_levels(20)[::-1])
    os.utime(path, ns=(1, 1))
    assert not np.array_equal(cached_clip(path, InputRequest(4, 16, 16)), first)


@pytest.mark.parametrize("setting", ["", "/proc/nowhere"])
def test_no_cache_is_no_failure(tmp_path, monkeypatch, setting):
    monkeypatch.setenv("SEMCODEC_CACHE", setting)
    path = write_video(tmp_path / "v.mp4", grey_levels(5))
    assert np.array_equal(cached_clip(path, InputRequest(4, 16, 16)), read_clip(path, InputRequest(4, 16, 16)))


# H.264


def moving(height: int, width: int) -> np.ndarray:
    ground = texture(seeds_for(4, [0]), height, width + 16)[0]
    return np.stack([np.rint(ground[:, t : t + width]).astype(np.uint8) for t in range(12)])


@pytest.mark.parametrize(("height", "width"), [(64, 80), (34, 46)])
def test_h264_gives_back_the_clip_at_a_quality_that_crf_rules(height, width):
    clip = moving(height, width)
    sizes, errors = [], []
    for crf in (10, 25, 40):
        data = encode_h264(clip, crf)
        back = decode_h264(data, 12, height, width)
        assert back.shape == clip.shape
        assert back.dtype == np.uint8
        sizes.append(len(data))
        errors.append(np.abs(back.astype(int) - clip).mean())
    assert sizes[0] > sizes[1] > sizes[2]
    assert errors[0] < errors[1] < errors[2]
    assert errors[0] < 12
    assert encode_h264(clip, 25) == encode_h264(clip, 25)


def test_h264_carries_no_ballast():
    data = encode_h264(moving(64, 80), 30)
    assert b"x264" not in data
    assert len(encode_h264(np.zeros((1, 16, 16, 3), np.uint8), 30)) < 100


def test_h264_refuses_what_it_cannot_read():
    for data in (b"", b"nothing", b"\x00\x00\x00\x01" * 9, encode_h264(moving(32, 32), 30)[:20]):
        with pytest.raises(DataError):
            decode_h264(data, 12, 32, 32)
    whole = encode_h264(moving(32, 32), 30)
    for other in ((11, 32, 32), (13, 32, 32), (12, 32, 48)):
        with pytest.raises(DataError, match="frames"):
            decode_h264(whole, *other)
    with pytest.raises(DataError):
        encode_h264(np.zeros((0, 16, 16, 3), np.uint8), 30)
    with pytest.raises(DataError, match="even sides"):
        encode_h264(np.zeros((2, 33, 48, 3), np.uint8), 30)


# Folders


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes, five and six short videos, whose grey level tells the file."""
    for name, count in (("walk", 5), ("run", 6)):
        (tmp_path / name).mkdir()
        for n in range(count):
            write_video(tmp_path / name / f"v{n}.mp4", np.full(4, 30 + 20 * n), 16, 16)
    (tmp_path / "run" / "notes.md").write_text("x")
    (tmp_path / "run" / ".hidden.mp4").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "LICENSE").write_text("x")
    return tmp_path


def all_ids(data: ClassFolders) -> list[str]:
    return data.ids(range(len(data)))


def test_folders_split_by_sorted_name(folder):
    train, test, whole = (ClassFolders(folder, split, CLIP) for split in ("train", "test", "all"))
    assert train.classes == ["run", "walk"]
    assert all_ids(test) == ["run/v4.mp4", "walk/v4.mp4", "run/v5.mp4"]
    assert all_ids(train)[:3] == ["run/v0.mp4", "walk/v0.mp4", "run/v1.mp4"]
    assert sorted(all_ids(train) + all_ids(test)) == sorted(all_ids(whole))
    assert len(whole) == 11
    assert whole.skipped == 1
    assert [data.split for data in (train, test, whole)] == ["train", "test", "all"]  # what records tell apart
    pixels, labels = test.batch([0, 1])
    assert pixels.shape == (2, 4, 16, 16, 3)
    assert labels.tolist() == [0, 1]
    assert np.abs(pixels.mean((1, 2, 3, 4)) - 110).max() < 2


def test_lists_settle_the_splits(folder):
    (folder / "test.txt").write_text("# chosen\nwalk/v0.mp4\n\nrun/v3.mp4\n")
    assert sorted(all_ids(ClassFolders(folder, "test", CLIP))) == ["run/v3.mp4", "walk/v0.mp4"]
    assert len(ClassFolders(folder, "train", CLIP)) == 9
    (folder / "train.txt").write_text("walk/v1.mp4\n./run/v0.mp4\n")
    assert sorted(all_ids(ClassFolders(folder, "train", CLIP))) == ["run/v0.mp4", "walk/v1.mp4"]
    (folder / "train.txt").write_text("walk/v1.mp4\nwalk/absent.mp4\n")
    with pytest.raises(DataError) as error:
        ClassFolders(folder, "train", CLIP)
    one_line(error, "walk/absent.mp4", "train.txt")


def test_lists_are_read_like_any_other_text(folder):
    """With a byte order mark, in either Unicode form; where a sample is not there, how the set was split is said."""
    (folder / "walk" / "v0.mp4").rename(folder / "walk" / unicodedata.normalize("NFD", "déjà.mp4"))
    (folder / "test.txt").write_text("\ufeffwalk/" + unicodedata.normalize("NFC", "déjà.mp4") + "\nrun/v3.mp4\n")
    assert len(ClassFolders(folder, "test", CLIP)) == 2
    with pytest.raises(DataError, match=r"0 to 1 in its test split \(by test\.txt\), not 2"):
        open_input(f"{folder}:2", CLIP)
    (folder / "test.txt").unlink()
    with pytest.raises(DataError, match=r"0 to 2 in its test split \(by sorted name, the first 80 %"):
        open_input(f"{folder}:3", CLIP)


def test_names_that_are_no_utf8_are_shown(folder):
    os.rename(os.fsencode(folder / "run" / "v5.mp4"), os.path.join(os.fsencode(folder), b"run", b"v\xff.mp4"))
    os.rename(os.fsencode(folder / "walk"), os.path.join(os.fsencode(folder), b"walk\xfe"))
    data = ClassFolders(folder, "all", CLIP)
    assert data.classes == ["run", "walk\\xfe"]
    assert "run/v\\xff.mp4" in all_ids(data) and "walk\\xfe/v0.mp4" in all_ids(data)
    assert len(data.batch(range(len(data)))[0]) == 11
    assert CliRunner().invoke(main, ["data", "show", str(folder)], catch_exceptions=False).exit_code == 0


def test_image_folders_are_upright_and_rgb(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :40] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: left becomes top
    Image.fromarray(picture).save(tmp_path / "cat" / "a.jpg", exif=exif, quality=95)
    Image.fromarray(picture[..., 0]).convert("LA").save(tmp_path / "dog" / "a.PNG")
    data = open_dataset(str(tmp_path), "all", InputRequest(None, 80, 40))
    assert data.kind == "image"
    pixels, labels = data.batch([0, 1])
    assert labels.tolist() == [0, 1]
    assert pixels[0, 5:35].min() > 200
    assert pixels[0, 45:75].max() < 50
    assert pixels[1].shape == (80, 40, 3)


def test_bad_folders_are_one_line(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    cases = {
        str(folder / "absent"): "no such",
        str(empty): "<class>/<file>",
        str(folder / "LICENSE"): "is a file",
        "digit-motion": "did you mean digits-motion",
    }
    for name, words in cases.items():
        with pytest.raises(DataError) as error:
            open_dataset(name, "test", CLIP)
        one_line(error, words)
    with pytest.raises(DataError) as error:
        open_dataset(str(folder), "test", SCENE)
    one_line(error, "holds videos where the model takes images")
    (folder / "run" / "v4.mp4").write_bytes(b"broken")
    with pytest.raises(DataError) as error:
        ClassFolders(folder, "test", CLIP).batch([0])
    one_line(error, "run/v4.mp4")
    with pytest.raises(UsageError):
        open_dataset(str(folder), "validation", CLIP)


def test_bad_images_are_one_line(tmp_path):
    good = tmp_path / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)).save(good)
    for name, data in {"empty.png": b"", "text.jpg": b"hello", "cut.png": good.read_bytes()[:2000]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError) as error:
            read_image(tmp_path / name, InputRequest(None, 8, 8))
        one_line(error, name)


# Inputs, listing


def test_inputs_are_files_or_samples(folder, tmp_path):
    path = folder / "walk" / "v2.mp4"
    pixels, label, classes, name, _ = open_input(str(path), CLIP)
    assert (pixels.shape, label, classes, name) == ((1, 4, 16, 16, 3), None, None, str(path))
    pixels, label, classes, name, _ = open_input(f"{folder}:1", CLIP)
    assert (label, classes, name) == (1, ["run", "walk"], "walk/v4.mp4")
    odd = folder / "clip:0"
    odd.write_bytes(path.read_bytes())
    assert open_input(str(odd), CLIP)[1] is None
    pixels, label, classes, *_ = open_input("digits-scenes:5", SCENE)
    assert np.array_equal(pixels, open_dataset("digits-scenes", "test", SCENE).batch([5])[0])
    assert classes is not None
    assert label in range(10)


def test_bad_inputs_are_one_line(folder):
    cases = {
        "absent.mp4": "no such file",
        "digits-scene:3": "did you mean digits-scenes",
        "digits-scenes:1000": "0 to 999",
        "digits-scenes:x": "no such file",
        "digits-scenes": "digits-scenes:0",
        str(folder): f"{folder}:0",
        f"{folder}:99": "0 to 2",
    }
    for text, words in cases.items():
        with pytest.raises(DataError) as error:
            open_input(text, CLIP if str(folder) in text else SCENE)
        one_line(error, words)
    with pytest.raises(DataError, match="takes images"):
        open_input(str(folder / "walk" / "v0.mp4"), SCENE)


def test_listing_tells_the_truth(folder):
    for row in rows():
        request = InputRequest(2 if row["kind"] == "video" else None, 32, 32)
        for split, size in row["sizes"].items():
            data = open_dataset(row["name"], split, request)
            assert (len(data), data.kind, len(data.classes)) == (size, row["kind"], row["classes"])
        assert describe(row["name"])["classes"] == data.classes
    shown = describe(str(folder))
    assert (shown["kind"], shown["sizes"], shown["classes"]) == ("video", {"train": 8, "test": 3}, ["run", "walk"])
    assert "1 other file" in shown["description"]
    with pytest.raises(SemcodecError):
        describe("absent")


def test_importing_the_package_is_light():
    heavy = {"numpy", "sklearn", "av", "PIL", "torch"}
    code = f"import sys, semcodec.data as d; d.rows(); print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_digest_does_not_depend_on_batches_but_on_everything_else():
    pixels, labels = open_dataset("digits-scenes", "test", InputRequest(None, 24, 24)).batch(range(6))
    digests = []
    for parts in ([range(6)], [range(2), range(2, 6)], [range(5)], [[1, 0, 2, 3, 4, 5]]):
        digest = Digest()
        for part in parts:
            digest.update(pixels[list(part)], labels[list(part)])
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    other = Digest()
    other.update(pixels, labels + 1)
    assert other.hexdigest() not in digests
    assert len(other.hexdigest()) == 16


# Real files


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "frames", "classes", "sizes"), [("activities", 16, 7, (157, 49)), ("fights", 16, 2, (192, 48))]
)
def test_real_clips(name, frames, classes, sizes):
    root = os.environ.get("SEMCODEC_DATA")
    if not root or not Path(root, name).is_dir():
        pytest.skip("SEMCODEC_DATA names no folder with this set")
    train, test = (open_dataset(f"{root}/{name}", split, InputRequest(frames, 64, 64)) for split in ("train", "test"))
    assert (len(train), len(test)) == sizes
    assert len(test.classes) == classes
    assert not set(train.ids(range(len(train)))) & set(test.ids(range(len(test))))
    pixels, labels = test.batch(range(4))
    assert labels.tolist() == [n % classes for n in range(4)]
    assert all(p.std() > 5 for p in pixels)
    assert all(np.abs(np.diff(p.astype(int), axis=0)).max() > 5 for p in pixels)  # something moves


@pytest.mark.shared_data
def test_real_avi_files():
    root = os.environ.get("SEMCODEC_DATA")
    if not root or not Path(root, "hmdb51_clips").is_dir():
        pytest.skip("SEMCODEC_DATA names no folder with hmdb51_clips")
    files = [p for p in Path(root, "hmdb51_clips").iterdir() if p.suffix in (".avi", ".mp4")]
    assert files
    for path in files:
        assert len({frame.tobytes() for frame in read_clip(path, InputRequest(16, 32, 32))}) > 8


def test_a_gif_among_pictures_makes_no_folder_of_videos(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    Image.new("P", (8, 8)).save(tmp_path / "a" / "0.gif")
    found = describe(str(tmp_path))
    assert (found["kind"], found["classes"]) == ("image", ["a", "b"])
    assert open_dataset(str(tmp_path), "train").classes == ["a", "b"]
