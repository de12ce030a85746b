"""Images with boxes, in YOLO's layout: ``root/images/<split>/`` and ``root/labels/<split>/``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.data.base import Dataset, EmptySplitError, check_split, summary_of
from semcodec.data.class_names import read_class_names
from semcodec.data.contents import digest_of, file_digests
from semcodec.data.files import Names, printable, read_lines, visible
from semcodec.data.images import read_image, size_of
from semcodec.data.split_folders import expected, folders_of, pictures_in
from semcodec.errors import DataError
from semcodec.specs import BOXES, InputRequest

if TYPE_CHECKING:
    from semcodec.boxes import Boxes
    from semcodec.data.base import Labels, UInt8

IMAGES, LABELS, NAMES = "images", "labels", "data.yaml"
GIVES = (BOXES,)
COCO = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
]  # fmt: skip
_EDGE = 0.01
"""Of an image: how far outside a label may say that a box is, for rounding."""


class BoxFolders(Dataset):
    """Images in ``root/images/<folder>`` with the boxes that ``root/labels/<folder>/<name>.txt`` lists.

    The folders of the split "train" begin with train, those of "test" with val, or where there are none with test;
    "all" is every one of these. A line is ``class x y width height``: a class's number and a box's centre and size as
    shares of the image's. A line that says the same as an earlier one counts no second time, as in YOLO's own tools.
    An image without such a file, or with an empty one, has no objects; a file's name may be in the other Unicode form
    and its ending in capitals. ``root/data.yaml`` names the classes; without it they are COCO's 80. Images come in the
    order of their folders and names.

    repeated: how many lines were such repetitions.
    The labels of the split are all read, and checked, when the first batch is asked for. Raises DataError for a wrong
    line, with its file and number.
    """

    kind = "image"
    natural = True

    def __init__(self, root: str | os.PathLike[str], split: str, request: InputRequest) -> None:
        check_split(split)
        if request.labels != BOXES:
            takes = "clips" if request.kind == "video" else "images of one class each"
            raise DataError(f"{root}: holds boxes for detectors, and the model takes {takes}; choose other data")
        self.root, self.request, self.name, self.split = Path(root), request, printable(str(root)), split
        self.classes = read_class_names(self.root / NAMES) if (self.root / NAMES).is_file() else list(COCO)
        folders = folders_of(self.root / IMAGES, split)
        self.division = f"by the folders {', '.join(map(printable, folders))} of {IMAGES}/"
        self.repeated = 0
        self._files = [f"{folder}/{name}" for folder in folders for name in pictures_in(self.root / IMAGES / folder)]
        self._sizes: dict[int, tuple[int, int]] = {}
        if not self._files:
            where = expected(f"{self.root / IMAGES}/", split)
            raise EmptySplitError(f"{root}: has no images of split {split!r}; expected in {where}")

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("detection",)

    def __len__(self) -> int:
        return len(self._files)

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        from semcodec.boxes import Boxes, Letterbox, corners

        labels, pixels = self._labels, self.pictures(indices, self.request)
        boxes: list[Boxes] = []
        for index, (width, height) in zip(indices, self.sizes(indices), strict=True):
            listed = labels[index]
            source = np.clip(corners(listed[:, 1:]), 0, 1) * np.array([width, height] * 2, np.float64)
            place = Letterbox.of(width, height, self.request.width, self.request.height)
            boxes.append(place.to_input(Boxes.of(source, listed[:, 0])))
        return pixels, boxes

    def pictures(self, indices: Sequence[int], request: InputRequest) -> UInt8:
        """The images as ``request`` wants them, (B, H, W, 3)."""
        pixels = np.empty((len(indices), *request.shape), np.uint8)
        for row, index in enumerate(indices):
            pixels[row] = read_image(self.root / IMAGES / self._files[index], request)
        return pixels

    def sizes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        for index in indices:
            if index not in self._sizes:
                self._sizes[index] = size_of(self.root / IMAGES / self._files[index])
        return [self._sizes[index] for index in indices]

    def content(self, count: int) -> str:
        files = file_digests(self.root / IMAGES, self._files[:count])
        return digest_of([self.classes, *zip(files, self._rows[:count], strict=True)])

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Paths relative to ``root/images``."""
        return [printable(self._files[i]) for i in indices]

    @cached_property
    def _labels(self) -> list[Any]:
        """By image, float64 (n, 5): class, centre x, y, width and height as shares of the image."""
        return [np.array(rows, np.float64).reshape(-1, 5) for rows in self._rows]

    @cached_property
    def _rows(self) -> list[list[tuple[float, ...]]]:
        """By image, the same as numbers."""
        folders = {os.path.dirname(file) for file in self._files}
        there = {folder: _label_files(self.root / LABELS / folder) for folder in folders}
        return [self._read(*os.path.split(file), there) for file in self._files]

    def _read(self, folder: str, image: str, there: dict[str, Names]) -> list[tuple[float, ...]]:
        parent = self.root / LABELS / folder
        try:
            name = there[folder].find(f"{os.path.splitext(image)[0]}.txt")
        except DataError as e:
            raise DataError(f"{parent}: {e}") from e
        lines = read_lines(parent / name) if name is not None else []
        path = parent / (name or "")
        rows = [_row(path, number, line, self.classes) for number, line in enumerate(lines, 1) if line]
        once = list(dict.fromkeys(rows))
        self.repeated += len(rows) - len(once)
        return once

    def objects(self) -> int:
        """How many boxes there are."""
        return sum(map(len, self._labels))


def holds(root: str | os.PathLike[str]) -> bool:
    """Whether a folder is of this form."""
    return Path(root, IMAGES).is_dir() and Path(root, LABELS).is_dir()


def open_split(root: str | os.PathLike[str], split: str, request: InputRequest | None) -> BoxFolders:
    """As ``BoxFolders``; without a request 224x224."""
    return BoxFolders(root, split, request or InputRequest(None, 224, 224, fit="letterbox", labels=BOXES))


def summary(root: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder holds, without reading an image: name, kind, classes, sizes by split, description."""
    request = InputRequest(None, 1, 1, fit="letterbox", labels=BOXES)
    whole = BoxFolders(root, "all", request)
    named = NAMES if Path(root, NAMES).is_file() else "COCO's names"
    description = f"{IMAGES}/ and {LABELS}/ with {whole.objects():,} boxes, YOLO's layout; {named}"
    if whole.repeated:
        description += f"; {whole.repeated:,} repeated lines of labels count once"
    return summary_of(whole, lambda split: BoxFolders(root, split, request), description)


def _label_files(folder: Path) -> Names:
    there = (path.name for path in visible(folder) if path.is_file()) if folder.is_dir() else ()
    return Names(there, any_case=True)


def _row(path: Path, number: int, line: str, classes: Sequence[str]) -> tuple[float, ...]:
    where, fields = f"{path}, line {number}", line.split()
    if len(fields) != 5:
        raise DataError(f"{where}: has {len(fields)} fields where a box has 5: class, centre x, y, width, height")
    try:
        index, *box = map(float, fields)
    except ValueError:
        raise DataError(f"{where}: {line!r} are not five numbers") from None
    if index not in range(len(classes)):
        known = f"0 to {len(classes) - 1}" + ("" if len(classes) != len(COCO) else f"; name others in {NAMES}")
        raise DataError(f"{where}: class {fields[0]} is none of {known}")
    x, y, width, height = box
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if not all(math.isfinite(edge) and -_EDGE <= edge <= 1 + _EDGE for edge in edges) or min(width, height) <= 0:
        raise DataError(f"{where}: the box {' '.join(fields[1:])} is not within the image; values are shares, 0 to 1")
    return (index, *box)
