"""Samples that were read once and are read again and again, as training does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.data.base import Dataset, View

if TYPE_CHECKING:
    from semcodec.data.base import Labels, UInt8

MOST_BYTES = 2 << 30
"""Of pixels that are kept."""


class Remembered(View):
    """Another data set, of which as many samples stay in memory as fit: the first that are asked for."""

    def __init__(self, inner: Dataset, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(inner)
        self._left = most_bytes
        self._listed = False
        self._kept: dict[int, tuple[UInt8, Any]] = {}

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        new = [index for index in dict.fromkeys(indices) if index not in self._kept]
        fresh: dict[int, tuple[UInt8, Any]] = {}
        if new:
            pixels, labels = self.inner.batch(new)
            self._listed = isinstance(labels, list)
            for index, sample, label in zip(new, pixels, labels, strict=True):
                fresh[index] = (sample, label)
                if sample.nbytes <= self._left:
                    self._left -= sample.nbytes
                    self._kept[index] = (sample.copy(), label)
        found = [fresh[index] if index in fresh else self._kept[index] for index in indices]
        labels = [label for _, label in found]
        return np.stack([sample for sample, _ in found]), labels if self._listed else np.array(labels)
