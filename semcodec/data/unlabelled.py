"""Pictures or clips in a folder, in whatever order of folders, without labels: what distillation trains on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semcodec.data.base import Dataset, View
from semcodec.data.files import printable, read_list, visible
from semcodec.data.folders import SUFFIXES, read_batch
from semcodec.data.forms import is_listed
from semcodec.errors import DataError
from semcodec.specs import CLASS, InputRequest

if TYPE_CHECKING:
    from semcodec.data.base import Int64, UInt8


class Unlabelled(Dataset):
    """Every file of the requested kind under a folder, for training; all labels are 0, and no class has a name.

    Of those that ``train.txt`` lists, or less those that ``test.txt`` lists, paths relative to the folder, where these
    are there. Raises DataError where there is no such file.
    """

    varies = True
    split = "train"

    def __init__(self, root: str | os.PathLike[str], request: InputRequest) -> None:
        self.root, self.request, self.kind = Path(root), request, request.kind
        self.name, self.classes = printable(str(root)), []
        files = list(_files(self.root, SUFFIXES[self.kind]))
        train, test = (read_list(self.root / f"{split}.txt", files) for split in ("train", "test"))
        self._samples = [f for f in files if (f in train if train is not None else f not in (test or ()))]
        self.division = "by lists" if train is not None or test is not None else "all for training"
        if not self._samples:
            raise DataError(f"{root}: holds no {self.kind} to train on")

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Int64]:
        pixels = read_batch(self.root, [self._samples[i] for i in indices], self.request)
        return pixels, np.zeros(len(indices), np.int64)

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Paths relative to the folder."""
        return [printable(self._samples[i]) for i in indices]


class LabelsLeftOut(View):
    """Photographs with boxes or masks, which do not count here, so that mirrored and cropped they serve as well."""

    def __init__(self, inner: Dataset) -> None:
        super().__init__(inner)
        self.varies = True

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Int64]:
        pixels, _ = self.inner.batch(indices)
        return pixels, np.zeros(len(indices), np.int64)


def needed(root: str, request: InputRequest) -> bool:
    """Whether a folder has no form that labels are read from: files at its top, or pictures for a model of boxes."""
    if not os.path.isdir(root) or is_listed(root):
        return False
    top = any(path.is_file() and path.suffix.lower() in SUFFIXES[request.kind] for path in visible(Path(root)))
    return top or request.labels != CLASS


def _files(root: Path, suffixes: frozenset[str]) -> Iterator[str]:
    """Paths relative to the folder, by name, folder after folder."""
    for path in visible(root):
        if path.is_dir():
            yield from (f"{path.name}/{inside}" for inside in _files(path, suffixes))
        elif path.suffix.lower() in suffixes:
            yield path.name
