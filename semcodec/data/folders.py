"""Class folders: ``root/<class>/<file>``, clips or images, with or without lists of the splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from semcodec.data.base import Dataset, EmptySplitError, check_split, summary_of
from semcodec.data.contents import digest_of, file_digests
from semcodec.data.files import printable, read_list, visible
from semcodec.data.images import read_image, size_of
from semcodec.errors import DataError
from semcodec.specs import CLASS, InputRequest

if TYPE_CHECKING:
    from semcodec.data.base import Int64, UInt8

GIVES = (CLASS,)
VIDEO_SUFFIXES = frozenset(
    (".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm")
)
IMAGE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
SUFFIXES: dict[Literal["video", "image"], frozenset[str]] = {"video": VIDEO_SUFFIXES, "image": IMAGE_SUFFIXES}


class ClassFolders(Dataset):
    """A folder of class folders, of the kind that ``request`` asks for.

    ``train.txt`` and ``test.txt`` beside the classes, paths relative to the root, settle the splits; where only one
    is there the other split is the rest. Without lists the first 80 % of each class by sorted name are
    for training. Split "all" is every file. Samples go round the classes, so that any first N cover them.

    Natural footage seen in a mirror, or a little nearer, is of the same class, so training varies it.

    skipped: how many visible files were passed over for their extension.
    Raises DataError where no such folder or no class in it is found.
    """

    varies = True

    def __init__(self, root: str | os.PathLike[str], split: str, request: InputRequest) -> None:
        check_split(split)
        self.root, self.request = Path(root), request
        self.name, self.kind, self.split = printable(str(root)), request.kind, split
        if not self.root.is_dir():
            raise DataError(f"no such folder: {root}")
        files, self.skipped = _scan(self.root, SUFFIXES[self.kind])
        if not files:
            raise DataError(_nothing_in(self.root, self.kind))
        self.classes = [printable(name) for name in files]
        self.division = _division(self.root)
        known = [file for paths in files.values() for file in paths]
        listed = {name: read_list(self.root / f"{name}.txt", known) for name in ("train", "test")}
        samples = []
        for label, paths in enumerate(files.values()):
            chosen = _choose(paths, split, listed)
            samples += [(rank, label, path) for rank, path in enumerate(chosen)]
        samples.sort()
        self._samples = [(label, path) for _, label, path in samples]
        if not self._samples:
            raise EmptySplitError(f"{root}: nothing is left for split {split!r}")

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Int64]:
        pixels = read_batch(self.root, [self._samples[i][1] for i in indices], self.request)
        return pixels, np.array([self._samples[i][0] for i in indices], np.int64)

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("video",) if self.kind == "video" else ("classification", "retrieval")

    def sizes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        return [size_of(self.root / self._samples[i][1]) for i in indices]

    def content(self, count: int) -> str:
        chosen = self._samples[:count]
        files = file_digests(self.root, (path for _, path in chosen))
        return digest_of([self.classes, *zip(files, (label for label, _ in chosen), strict=True)])

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Paths relative to the root."""
        return [printable(self._samples[i][1]) for i in indices]


def read_batch(root: Path, paths: Sequence[str], request: InputRequest) -> UInt8:
    """Pixels of the files, by paths relative to the folder, as the request wants them. Raises DataError."""
    if request.kind == "image":
        read = read_image
    else:
        from semcodec.data.video import cached_clip as read
    pixels = np.empty((len(paths), *request.shape), np.uint8)
    for row, path in enumerate(paths):
        pixels[row] = read(root / path, request)
    return pixels


def _scan(root: Path, suffixes: frozenset[str]) -> tuple[dict[str, list[str]], int]:
    """Relative paths by class, both sorted, of the files with these extensions, and how many others there are."""
    files: dict[str, list[str]] = {}
    skipped = 0
    for folder in (path for path in visible(root) if path.is_dir()):
        names = [path.name for path in visible(folder) if path.is_file()]
        usable = [f"{folder.name}/{name}" for name in names if Path(name).suffix.lower() in suffixes]
        skipped += len(names) - len(usable)
        if usable:
            files[folder.name] = usable
    return files, skipped


def kind_of(root: str | os.PathLike[str]) -> Literal["video", "image"]:
    """What a folder of class folders holds, more of where it holds both: a GIF among photographs is no clip."""
    count = {kind: sum(map(len, _scan(Path(root), suffixes)[0].values())) for kind, suffixes in SUFFIXES.items()}
    if not any(count.values()):
        raise DataError(_nothing_in(Path(root), "image"))
    return max(count, key=lambda kind: count[kind])


def holds(root: str | os.PathLike[str]) -> bool:
    """Whether a folder may be of this form: any that is of no other."""
    return True


def open_split(root: str | os.PathLike[str], split: str, request: InputRequest | None) -> ClassFolders:
    """As ``ClassFolders``; without a request clips of 16x224x224 or images of 224x224, whichever it holds."""
    if request is None:
        request = InputRequest(16 if kind_of(root) == "video" else None, 224, 224)
    return ClassFolders(root, split, request)


def summary(root: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder holds, without reading a file: name, kind, classes, sizes by split, description."""
    kind = kind_of(root)
    request = InputRequest(1 if kind == "video" else None, 1, 1)
    whole = ClassFolders(root, "all", request)
    how = _lists(Path(root))
    description = f"class folders, split by {' and '.join(how) or 'sorted name 80/20'}"
    if whole.skipped:
        description += f"; {whole.skipped} other files skipped"
    return summary_of(whole, lambda split: ClassFolders(root, split, request), description)


def _nothing_in(root: Path, kind: str) -> str:
    wanted, other = ("videos", "images") if kind == "video" else ("images", "videos")
    if _scan(root, SUFFIXES["image" if kind == "video" else "video"])[0]:
        return f"{root}: holds {other} where the model takes {wanted}; choose another data set or backbone"
    tabled = ", or images/ and labels.csv" if kind == "image" else ""
    return f"{root}: holds no class folders with {wanted}; expected {root}/<class>/<file>{tabled}"


def _lists(root: Path) -> list[str]:
    """The lists of splits that are there."""
    return [f"{name}.txt" for name in ("train", "test") if (root / f"{name}.txt").is_file()]


def _division(root: Path) -> str:
    how = _lists(root)
    if how:
        return f"by {' and '.join(how)}"
    return "by sorted name, the first 80 % of each class for training; train.txt or test.txt would settle it"


def _choose(paths: list[str], split: str, listed: dict[str, frozenset[str] | None]) -> list[str]:
    """The files of one class that belong to ``split``."""
    if split == "all":
        return paths
    own, other = listed[split], listed["test" if split == "train" else "train"]
    if own is not None:
        return [p for p in paths if p in own]
    if other is not None:
        return [p for p in paths if p not in other]
    count = len(paths) * 4 // 5
    return paths[:count] if split == "train" else paths[count:]
