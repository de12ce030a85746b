"""What a worker remembers from cell to cell, within a bound."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from semcodec.data.base import Dataset, View

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.data.base import Labels, UInt8

Batch = tuple[int, ...]
"""Numbers of the samples in a batch, which name it."""


@dataclass(frozen=True)
class Scores:
    """Scores of one target, of one batch. prefix: what they depend on. seconds: that computing them took."""

    prefix: Hashable
    tensor: Tensor
    seconds: float

    @property
    def size(self) -> int:
        return size_of(self.tensor)


class Store:
    """Keeps what fits into ``limit`` bytes: once full, what comes is not kept and must be made anew."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used, self._kept = limit, 0, dict[Hashable, Any]()

    def get(self, name: Hashable) -> Any:
        return self._kept.get(name)

    def put(self, name: Hashable, value: Any) -> None:
        if name not in self._kept and self.takes(value):
            self._kept[name] = value

    def takes(self, value: Any) -> bool:
        """Whether there is room for it, which is then taken."""
        size = size_of(value)
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def clear(self) -> None:
        self._kept.clear()
        self.used = 0


class Memory:
    """What one worker remembers, at most about ``limit`` bytes of it."""

    def __init__(self, limit: int) -> None:
        self.pixels, self.analyses, self.points = Store(limit // 4), Store(limit // 4), Store(limit // 2)
        self.scores: dict[tuple[Batch, str], Scores] = {}
        self._models: Hashable = None
        self._point: Hashable = None
        self._scores_used, self._scores_limit = 0, limit // 4

    def enter(self, models: Hashable, point: Hashable) -> None:
        """Forget what was of other models, or of another point."""
        if models != self._models:
            self.analyses.clear()
            self.scores.clear()
            self._scores_used = 0
        if (models, point) != (self._models, self._point):
            self.points.clear()
        self._models, self._point = models, point

    def remember_scores(self, name: tuple[Batch, str], found: Scores) -> None:
        """In the place of what was found for other masks before."""
        before = self.scores.pop(name, None)
        self._scores_used -= before.size if before else 0
        if self._scores_used + found.size <= self._scores_limit:
            self.scores[name] = found
            self._scores_used += found.size


class SharedDataset(View):
    """A data set whose batches are read once, as long as they fit into memory."""

    def __init__(self, inner: Dataset, memory: Memory) -> None:
        super().__init__(inner)
        self.memory = memory

    def digest(self, count: int) -> str:
        return self.inner.digest(count)

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        name = id(self.inner), tuple(indices)
        made: tuple[UInt8, Labels] | None = self.memory.pixels.get(name)
        if made is None:
            made = self.inner.batch(indices)
            self.memory.pixels.put(name, made)
        return made


def size_of(value: Any, seen: set[int] | None = None) -> int:
    """Bytes of all arrays and tensors in nested containers and records, each counted once."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        if storage.data_ptr() in seen:
            return 0
        seen.add(storage.data_ptr())
        return storage.nbytes()
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(size_of(v, seen) for v in value.values())
    if isinstance(value, list | tuple):
        return sum(size_of(v, seen) for v in value)
    return sum(size_of(v, seen) for v in vars(value).values()) if hasattr(value, "__dict__") else 64
