"""Samples that stay in memory are the same, are read once, and take no more than they may."""

from __future__ import annotations

import numpy as np
import pytest

from semcodec.data.base import Dataset
from semcodec.data.remembered import Remembered


class Numbers(Dataset):
    """Pixels that say their index; labels of one kind or the other."""

    name, kind, classes, split, varies = "numbers", "image", ["a", "b"], "train", True

    def __init__(self, listed: bool) -> None:
        self.listed, self.read = listed, []

    def __len__(self) -> int:
        return 10

    def batch(self, indices):
        self.read += indices
        pixels = np.stack([np.full((2, 2, 3), index, np.uint8) for index in indices])
        labels = [[index] for index in indices] if self.listed else np.array([i % 2 for i in indices], np.int64)
        return pixels, labels

    def ids(self, indices):
        return [f"numbers/{index}" for index in indices]


@pytest.mark.parametrize("listed", [False, True])
def test_samples_are_read_once_and_are_the_same(listed):
    inner, plain = Numbers(listed), Numbers(listed)
    data = Remembered(inner)
    for rows in ([3, 1], [1, 3, 3, 5], [5], [0, 1]):
        pixels, labels = data.batch(rows)
        expected, told = plain.batch(rows)
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, expected)
        assert type(labels) is type(told)
        assert list(labels) == list(told)
    assert inner.read == [3, 1, 5, 0]
    assert (data.name, data.kind, data.classes, data.varies, len(data)) == ("numbers", "image", ["a", "b"], True, 10)
    assert data.ids([2]) == ["numbers/2"]
    assert data.content(3) == plain.content(3)


def test_no_more_is_kept_than_fits():
    inner = Numbers(False)
    data = Remembered(inner, most_bytes=30)  # two samples of twelve bytes
    for _ in range(2):
        data.batch([0, 1, 2])
    assert inner.read == [0, 1, 2, 2]


def test_what_is_kept_is_not_what_was_handed_out():
    data = Remembered(Numbers(False))
    data.batch([4])[0][:] = 0
    assert (data.batch([4])[0] == 4).all()
