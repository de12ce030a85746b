"""Images with a table of their labels: ``root/images/`` and ``root/labels.csv``."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from semcodec.data.base import SPLITS, Dataset, EmptySplitError, check_images, check_split, summary_of
from semcodec.data.contents import digest_of, file_digests
from semcodec.data.files import Tree, printable, read_lines, read_text
from semcodec.data.images import read_image, size_of
from semcodec.errors import DataError, first_line
from semcodec.specs import CLASS, InputRequest

if TYPE_CHECKING:
    from semcodec.data.base import Int64, UInt8

GIVES = (CLASS,)
TABLE, FOLDER, SYNSETS = "labels.csv", "images", "synset_words.txt"
FILE_COLUMNS = ("image", "file", "filename", "path")
SYNSET = re.compile(r"n\d{8} +(\S.*)")
IMAGENET = 1000


class Row(NamedTuple):
    """One row of the table of labels."""

    line: int
    """In the table, from 1."""
    file: str
    """As the table names it."""
    path: str
    """Of the file, relative to the folder of images."""
    label: str
    split: str
    """Empty where the table has no such column."""


class LabelledImages(Dataset):
    """Images in ``root/images`` with the labels that ``root/labels.csv`` gives them, in the table's order.

    Columns go by the names in the first line: the file in ``image`` (or ``file``, ``filename``, ``path``), its class in
    ``imagenet_index``, from 0, or else in ``label``, a name. Indexes stand for the 1000 classes that
    ``root/synset_words.txt`` names, each in a line such as "n01440764 tench, Tinca tinca"; otherwise the classes are
    the labels that occur, sorted. A column ``split`` holds train or test; without it every image is for the test.
    Split "all" is every image.

    occurring: how many of the classes have an image. has_splits: whether there is a column ``split``.
    Raises DataError, naming file and line, for anything else, such as an image that is listed but not there.
    """

    kind = "image"
    varies = True

    def __init__(self, root: str | os.PathLike[str], split: str, request: InputRequest) -> None:
        check_split(split)
        check_images(root, request)
        self.root, self.request, self.name = Path(root), request, printable(str(root))
        table = self.root / TABLE
        rows, indexed = _read_table(table)
        if indexed:
            self.classes = _synsets(self.root / SYNSETS)
            labels = [_index(table, row) for row in rows]
        else:
            self.classes = sorted({row.label for row in rows})
            places = {name: place for place, name in enumerate(self.classes)}
            labels = [places[row.label] for row in rows]
        self.occurring, self.has_splits = len(set(labels)), bool(rows[0].split)
        chosen = split if self.has_splits or split == "train" else "all"
        self.split = split if self.has_splits else None
        self.division = "by the column split" if self.has_splits else f"{TABLE} has no column split"
        kept = [(row, n) for row, n in zip(rows, labels, strict=True) if chosen in ("all", row.split)]
        self._samples = [(row.file, row.path, n) for row, n in kept]
        if not self._samples:
            why = (
                f"has no image of split {split!r}" if self.has_splits else "has no column split, so all is for the test"
            )
            raise EmptySplitError(f"{table}: {why}")

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Int64]:
        pixels = np.empty((len(indices), *self.request.shape), np.uint8)
        for row, index in enumerate(indices):
            pixels[row] = read_image(self.root / FOLDER / self._samples[index][1], self.request)
        return pixels, np.array([self._samples[i][2] for i in indices], np.int64)

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("classification", "retrieval")

    def sizes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        return [size_of(self.root / FOLDER / self._samples[i][1]) for i in indices]

    def content(self, count: int) -> str:
        chosen = self._samples[:count]
        files = file_digests(self.root / FOLDER, (path for _, path, _ in chosen))
        return digest_of([self.classes, *zip(files, (label for _, _, label in chosen), strict=True)])

    def ids(self, indices: Sequence[int]) -> list[str]:
        """The files as the table names them."""
        return [self._samples[i][0] for i in indices]


def holds(root: str | os.PathLike[str]) -> bool:
    """Whether a folder is of this form."""
    return Path(root, TABLE).is_file() and Path(root, FOLDER).is_dir()


def open_split(root: str | os.PathLike[str], split: str, request: InputRequest | None) -> LabelledImages:
    """As ``LabelledImages``; without a request 224x224."""
    return LabelledImages(root, split, request or InputRequest(None, 224, 224))


def summary(root: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder holds, without reading an image: name, kind, classes, sizes by split, description."""
    request = InputRequest(None, 1, 1)
    whole = LabelledImages(root, "all", request)
    how = "split by its column" if whole.has_splits else "all for the test"
    description = f"{FOLDER}/ and {TABLE}, {how}; {whole.occurring:,} of {len(whole.classes):,} classes occur"
    return summary_of(whole, lambda split: LabelledImages(root, split, request), description)


def _read_table(path: Path) -> tuple[list[Row], bool]:
    """The rows, at least one, and whether their labels are ImageNet indexes. Every image is there, and only once."""
    rows: list[Row] = []
    lines: dict[str, int] = {}
    images = Tree(path.parent / FOLDER)
    records = _records(path)
    _, header = next(records, (1, []))
    columns = {name.strip().lower(): place for place, name in reversed(list(enumerate(header)))}
    file = next((columns[name] for name in FILE_COLUMNS if name in columns), None)
    label = columns.get("imagenet_index", columns.get("label"))
    split = columns.get("split")
    if file is None:
        raise DataError(f"{path}, line 1: no column for the file; name it one of {', '.join(FILE_COLUMNS)}")
    if label is None:
        raise DataError(f"{path}, line 1: no column for the class; name it label or imagenet_index")
    for line, record in records:
        if len(record) != len(header):
            raise DataError(f"{path}, line {line}: has {len(record)} columns where the first line has {len(header)}")
        listed, named, part = (record[i].strip() if i is not None else "" for i in (file, label, split))
        where = f"{path}, line {line}"
        if not listed or not named:
            raise DataError(f"{where}: {header[label if listed else file].strip()} is empty")
        if split is not None and part not in SPLITS:
            raise DataError(f"{where}: split is train or test, not {part!r}")
        try:
            image = images.find(listed)
        except DataError as e:
            raise DataError(f"{where}: {e}") from e
        if image is None:
            raise DataError(f"{where}: there is no image {listed!r} in {images.root}")
        if image in lines:
            raise DataError(f"{where}: {listed!r} is listed already in line {lines[image]}")
        lines[image] = line
        rows.append(Row(line, listed, image, named, part))
    if not rows:
        raise DataError(f"{path}: lists no image")
    return rows, "imagenet_index" in columns


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each line of a table that is not empty."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for record in reader:
            if record:
                yield reader.line_num, record
    except csv.Error as e:
        raise DataError(f"{path}, line {reader.line_num}: is not CSV ({first_line(e)})") from e


def _index(table: Path, row: Row) -> int:
    if re.fullmatch("[0-9]{1,3}", row.label) is None:
        raise DataError(f"{table}, line {row.line}: imagenet_index is 0 to {IMAGENET - 1}, not {row.label!r}")
    return int(row.label)


def _synsets(path: Path) -> list[str]:
    """The names of the 1000 classes of ImageNet in the order of their indexes; two of them are "crane"."""
    if not path.is_file():
        raise DataError(f"no such file: {path}; it names the classes that imagenet_index in {TABLE} counts")
    lines, names = read_lines(path), []
    for number, line in enumerate(lines, 1):
        match = SYNSET.fullmatch(line)
        if match is None:
            raise DataError(f"{path}, line {number}: is not like 'n01440764 tench, Tinca tinca'")
        names.append(match[1])
    if len(names) != IMAGENET:
        raise DataError(f"{path}: has {len(names)} lines where ImageNet has {IMAGENET} classes")
    return names
