"""digits-motion: the same clips everywhere, hard enough to compress, and only recognised over several frames."""

from __future__ import annotations

import time

import numpy as np
import pytest

from semcodec.data import digits as module
from semcodec.data.base import Digest
from semcodec.data.datasets import open_dataset
from semcodec.data.digits import CLASSES, SIZES, DigitsMotion, hidden
from semcodec.data.textures import digit_images, seeds_for, texture
from semcodec.errors import DataError, UsageError
from semcodec.specs import InputRequest

CLIP = InputRequest(16, 64, 64)
DIGESTS = {"train": "5fa1d18b5be44c1b", "test": "96dc69da817e77a5"}  # of 16 clips at 32x32


def opened(split: str = "test", request: InputRequest = CLIP) -> DigitsMotion:
    return open_dataset("digits-motion", split, request)


def shown(data: DigitsMotion, indices: list[int]) -> np.ndarray:
    """(B, T): where the digit is, seen in the pixels alone: more than noise away from the clip's still background."""
    pixels, _ = data.batch(indices)
    seeds = seeds_for(1 if data.split == "train" else 2, indices)
    still = texture(seeds, data.height, data.width) * np.float32(module.BACKGROUND)
    return np.abs(pixels - still[:, None]).max((2, 3, 4)) > module.NOISE + 1


def test_a_clip_depends_on_its_index_alone():
    data = opened()
    whole, labels = data.batch(range(20))
    assert whole.shape == (20, 16, 64, 64, 3)
    assert whole.dtype == np.uint8
    assert labels.dtype == np.int64
    for indices in ([7], [19, 0, 19], list(range(3, 20, 2)), []):
        pixels, some = opened().batch(indices)
        assert np.array_equal(pixels, whole[indices])
        assert np.array_equal(some, labels[indices])
    assert len({clip.tobytes() for clip in whole}) == 20
    assert data.ids([3, 999]) == ["digits-motion/test/3", "digits-motion/test/999"]


def test_clips_stay_the_same_over_versions():
    """A changed digest means another data set: results measured on it are no longer comparable."""
    digests = {}
    for split in ("train", "test"):
        digest = Digest()
        digest.update(*opened(split, InputRequest(16, 32, 32)).batch(range(16)))
        digests[split] = digest.hexdigest()
    assert digests == DIGESTS


def test_train_and_test_share_no_digit_and_no_clip(monkeypatch):
    used = {}
    for split in ("train", "test"):
        drawn = []
        monkeypatch.setattr(module, "upsample", lambda images, size, drawn=drawn: drawn.append(images) or images * 0)
        opened(split, InputRequest(2, 32, 32)).batch(range(300))
        used[split] = {image.tobytes() for image in np.concatenate(drawn)}
        assert used[split] <= {image.tobytes() for image in digit_images(split)[0]}
        assert len(used[split]) > 150
    assert not used["train"] & used["test"]
    monkeypatch.undo()
    clips = [opened(split, InputRequest(4, 32, 32)).batch(range(50))[0] for split in ("train", "test")]
    assert len({clip.tobytes() for part in clips for clip in part}) == 100


def test_the_order_0_entropy_is_high():
    pixels, _ = opened().batch(range(64))
    entropies = []
    for channel in range(3):
        p = np.bincount(pixels[..., channel].ravel(), minlength=256) / pixels[..., channel].size
        p = p[p > 0]
        entropies.append(float(-(p * np.log2(p)).sum()))
    print(f"order-0 entropy of digits-motion, bit per channel: {', '.join(f'{e:.2f}' for e in entropies)}")
    assert min(entropies) >= 6.5
    # Nor are clips flat one by one.
    each = []
    for clip in pixels[:16]:
        p = np.bincount(clip.ravel(), minlength=256) / clip.size
        each.append(-(p[p > 0] * np.log2(p[p > 0])).sum())
    assert min(each) > 5


@pytest.mark.parametrize(("split", "size"), [("test", CLIP), ("train", InputRequest(8, 96, 112))])
def test_some_frames_hide_the_digit_and_some_show_it(split, size):
    indices = list(range(48))
    data = opened(split, size)
    visible = shown(data, indices)
    seeds = seeds_for(1 if split == "train" else 2, indices)
    assert np.array_equal(visible, ~hidden(seeds, size.frames))
    count = visible.sum(1)
    low, high = (round(n * size.frames / 16) for n in module.HIDDEN)
    assert count.min() >= max(2, size.frames - high)
    assert count.max() <= size.frames - low
    assert len(set(count.tolist())) > 2
    assert visible.mean(0).max() < 0.95  # no frame is always worth sending
    assert visible.mean(0).min() > 0.2


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 8, 16, 32])
def test_two_frames_at_least_are_visible(frames):
    visible = (~hidden(seeds_for(2, np.arange(500)), frames)).sum(1)
    assert visible.min() >= min(2, frames)


def test_hidden_frames_hold_background_and_noise():
    data = opened()
    pixels, _ = data.batch(range(8))
    visible = shown(data, list(range(8)))
    for clip, shows in zip(pixels, visible, strict=True):
        empty = clip[~shows].astype(int)
        assert len(empty) >= module.HIDDEN[0]
        change = np.abs(np.diff(empty, axis=0))
        assert 0 < change.max() <= 2 * module.NOISE + 1
        assert (change > 0).mean() > 0.5  # each frame has its own noise


def test_classes_are_balanced_and_of_all_motions():
    for split in ("train", "test"):
        data = opened(split, InputRequest(1, 8, 8))
        assert len(data) == SIZES[split]
        count = min(len(data), 1000)
        _, labels = data.batch(range(count))
        share = np.bincount(labels, minlength=len(CLASSES)) / count
        assert share.min() > 0.07, split
        assert share.max() < 0.13, split
    assert len(CLASSES) == 10
    assert not data.varies  # a mirrored "left" is "right"


def test_motions_are_what_their_names_say():
    """The digit's centre of brightness and its size, from first to last frame that shows it."""
    data = opened("train")
    pixels, labels = data.batch(range(160))
    seeds = seeds_for(1, np.arange(160))
    still = texture(seeds, 64, 64) * np.float32(module.BACKGROUND)
    light = np.clip(pixels - still[:, None] - 20, 0, None).mean(-1)
    mass = light.sum((2, 3))
    position = np.arange(64)
    x = (light.sum(2) * position).sum(2) / np.maximum(mass, 1)
    y = (light.sum(3) * position).sum(2) / np.maximum(mass, 1)
    visible = ~hidden(seeds, 16)
    right = {"left": [], "right": [], "up": [], "down": [], "zoom-in": [], "zoom-out": []}
    for i, label in enumerate(labels):
        first, last = visible[i].nonzero()[0][[0, -1]]
        dx, dy, growth = (v[i, last] - v[i, first] for v in (x, y, mass))
        tests = {"left": dx < 0, "right": dx > 0, "up": dy < 0, "down": dy > 0,
                 "zoom-in": growth > 0, "zoom-out": growth < 0}  # fmt: skip
        if CLASSES[label] in tests:
            right[CLASSES[label]].append(tests[CLASSES[label]])
    for name, results in right.items():
        assert len(results) >= 8
        assert np.mean(results) > 0.95, name


@pytest.mark.parametrize(
    "request_", [InputRequest(8, 96, 112), InputRequest(16, 224, 224), InputRequest(1, 32, 32), InputRequest(3, 40, 24)]
)
def test_other_sizes(request_):
    data = opened("test", request_)
    pixels, labels = data.batch([0, 5, 2])
    assert pixels.shape == (3, request_.frames, request_.height, request_.width, 3)
    assert np.array_equal(labels, opened().batch([0, 5, 2])[1])
    assert np.array_equal(pixels[2], data.batch([2])[0][0])


def test_what_is_not_there_is_refused():
    with pytest.raises(DataError, match="digits-scenes"):
        opened("test", InputRequest(None, 64, 64))
    with pytest.raises(UsageError, match="train and test"):
        opened("all")
    for index in (-1, 1000):
        with pytest.raises(IndexError, match=f"0 to 999, not {index}" if index > 0 else "0 to 999"):
            opened().batch([index])


def test_speed_is_reported():
    data = opened("train")
    data.batch(range(8))
    start = time.perf_counter()
    data.batch(range(100, 164))
    seconds = time.perf_counter() - start
    print(f"1,000 clips of 16x64x64 would take {1000 / 64 * seconds:.1f} s here")
    assert seconds < 60
