"""Data sets of the Hugging Face hub by name, ``hf:OWNER/NAME[@REVISION]``, or a local folder in that form, ``hf:PATH``.

``datasets`` fetches and caches them; pictures are decoded here, from their bytes. A table has a column of images, and
one of classes or of objects with boxes in COCO's form; which these are its features say.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec._files import read_regular
from semcodec._network import HUB, unreachable
from semcodec.data.base import Dataset, EmptySplitError, check_images, check_split, summary_of
from semcodec.data.contents import digest_of
from semcodec.data.files import printable
from semcodec.data.images import read_bytes, size_in
from semcodec.errors import DataError, SemcodecError, first_line
from semcodec.specs import BOXES, CLASS, InputRequest

if TYPE_CHECKING:
    from semcodec.boxes import Boxes
    from semcodec.data.base import Labels, UInt8

PREFIX = "hf:"
NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)?(@[\w.\-/]+)?", re.ASCII)
TEST = ("test", "validation", "valid", "val", "dev")
"""Names of the split that is the test's, the first that is there."""
LABEL = ("label", "labels", "class", "fine_label", "target")
OBJECTS, BOX, CATEGORY = (
    ("objects", "annotations"),
    ("bbox", "boxes"),
    ("category", "categories", "label", "category_id"),
)
LARGEST = 1 << 28
"""Bytes of one picture."""


class HubImages(Dataset):
    """Images of a table with their class, or with boxes where these are requested.

    Split "train" is the one of that name, "test" the first there is of ``TEST``; where there is but one split, all of
    it is for the test and for training; "all" is every one. Raises DataError for a table that lacks what is requested.
    """

    kind = "image"
    varies = True

    def __init__(self, name: str, split: str, request: InputRequest) -> None:
        check_split(split)
        check_images(name, request)
        self.name, self.request = printable(name), request
        tables = _tables(name, _environment())
        chosen = _chosen(name, tables, split)
        self.split = split if len(tables) > 1 else None
        self.division = f"by the splits {', '.join(tables)}" if len(tables) > 1 else f"it has but {next(iter(tables))}"
        self._parts = [tables[one] for one in chosen]
        self._ends = np.cumsum([len(part) for part in self._parts]).tolist()
        features = self._parts[0].features
        self._image = _column(name, features, ("image", "img", "picture"), "Image", "of images")
        if request.labels not in (BOXES, CLASS):
            raise DataError(f"{name}: of the hub classes and boxes are read, and the model takes {request.labels}")
        self.boxed = request.labels == BOXES
        if self.boxed:
            self._objects, self._box, self._category, self.classes = _objects(name, features)
            self.varies = False
        else:
            self._label, self.classes = _classes(name, features, tables)
            self._places = {value: place for place, value in enumerate(self.classes)}
        self._named = not self.boxed and type(features[self._label]).__name__ == "ClassLabel"

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("detection",) if self.boxed else ("classification",)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        pixels = np.empty((len(indices), *self.request.shape), np.uint8)
        labels: list[Any] = []
        for row, index in enumerate(indices):
            entry = self._row(index)
            pixels[row], size = read_bytes(self._bytes(entry, index), self._where(index), self.request)
            labels.append(self._boxes(entry, size, index) if self.boxed else self._class(entry, index))
        return pixels, labels if self.boxed else np.array(labels, np.int64)

    def pictures(self, indices: Sequence[int], request: InputRequest) -> UInt8:
        """The images as ``request`` wants them, (B, H, W, 3)."""
        pixels = np.empty((len(indices), *request.shape), np.uint8)
        for row, index in enumerate(indices):
            pixels[row] = read_bytes(self._bytes(self._row(index), index), self._where(index), request)[0]
        return pixels

    def sizes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        return [size_in(self._bytes(self._row(index), index), self._where(index)) for index in indices]

    def content(self, count: int) -> str:
        parts: list[Any] = [self.classes]
        for index in range(min(count, len(self))):
            entry = self._row(index)
            told = entry[self._objects] if self.boxed else self._class(entry, index)
            parts.append((hashlib.sha256(self._bytes(entry, index)).hexdigest(), told))
        return digest_of(parts)

    def ids(self, indices: Sequence[int]) -> list[str]:
        """The data set's name and the sample's number."""
        return [self._where(index) for index in indices]

    def _where(self, index: int) -> str:
        return f"{self.name}:{index}"

    def _row(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has samples 0 to {len(self) - 1}, not {index}")
        part = int(np.searchsorted(self._ends, index, side="right"))
        first = self._ends[part - 1] if part else 0
        found: Mapping[str, Any] = self._parts[part][index - first]
        return found

    def _bytes(self, entry: Mapping[str, Any], index: int) -> bytes:
        image = entry[self._image] or {}
        data = image.get("bytes")
        if data is None and image.get("path"):
            try:
                data = read_regular(Path(image["path"]), LARGEST)
            except OSError as error:
                raise DataError(f"{self._where(index)}: {error.strerror or error}") from error
        if not data:
            raise DataError(f"{self._where(index)}: has no picture")
        return bytes(data)

    def _class(self, entry: Mapping[str, Any], index: int) -> int:
        value = entry[self._label]
        place = value if self._named else self._places.get(str(value))
        if place is None or not 0 <= place < len(self.classes):  # as -1, of a split whose labels are kept secret
            raise DataError(f"{self._where(index)}: has no label")
        return int(place)

    def _boxes(self, entry: Mapping[str, Any], size: tuple[int, int], index: int) -> Boxes:
        from semcodec.boxes import Boxes, Letterbox

        told = entry[self._objects]
        if isinstance(told, list):  # one record an object, as newer versions give them
            told = {key: [one[key] for one in told] for key in (self._box, self._category)}
        try:
            corners = np.array(told[self._box], np.float64).reshape(-1, 4)
        except (TypeError, ValueError):
            raise DataError(f"{self._where(index)}: its boxes are not four numbers each") from None
        corners[:, 2:] += corners[:, :2]  # COCO's form: left, top, width, height
        classes = np.array(told[self._category], np.int64).reshape(-1)
        if not np.isfinite(corners).all() or len(classes) != len(corners):
            raise DataError(f"{self._where(index)}: its boxes are not finite, or not as many as their classes")
        if classes.size and not 0 <= classes.min() <= classes.max() < len(self.classes):
            raise DataError(f"{self._where(index)}: a class is none of 0 to {len(self.classes) - 1}")
        width, height = size
        corners = np.clip(corners, 0, np.array([width, height] * 2, np.float64))
        place = Letterbox.of(width, height, self.request.width, self.request.height)
        return place.to_input(Boxes.of(corners, classes))


def open_hub(name: str, split: str, request: InputRequest | None, labels: str | None = None) -> HubImages:
    """A data set of the hub; without a request 224x224 with ``labels``, or those that it has.

    Raises DataError where it cannot be had, or lacks what is requested, and UsageError.
    """
    return HubImages(name, split, request or _request(name, labels))


def check_name(name: str) -> None:
    """Raise DataError for a name that is none, at once and without asking anybody."""
    inside = name.removeprefix(PREFIX)
    if not os.path.isdir(inside) and (not NAME.fullmatch(inside) or ".." in inside):
        raise DataError(f"{name!r} names no data set of the hub: write hf:OWNER/NAME or hf:OWNER/NAME@REVISION")


def summary(name: str) -> dict[str, Any]:
    """What a data set holds, without reading an image: name, kind, classes, sizes by split, description."""
    request = _request(name, None)
    whole = HubImages(name, "all", request)
    what = "objects with boxes" if whole.boxed else "one class each"
    description = f"of the Hugging Face hub, {whole.division}; images with {what}"
    return summary_of(whole, lambda split: HubImages(name, split, request), description)


def _request(name: str, labels: str | None) -> InputRequest:
    """Where nobody asks for a size: with boxes where these are asked for, or there are objects and no classes."""
    features = next(iter(_tables(name, _environment()).values())).features
    if labels is None:
        classes = any(one in features for one in LABEL)
        labels = BOXES if not classes and any(one in features for one in OBJECTS) else CLASS
    return InputRequest(None, 224, 224, fit="letterbox" if labels == BOXES else "crop", labels=labels)


def _environment() -> tuple[str | None, ...]:
    return tuple(os.environ.get(one) for one in ("HF_ENDPOINT", "HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE"))


@cache
def _tables(name: str, environment: tuple[str | None, ...]) -> dict[str, Any]:
    """Tables by split, pictures as bytes, opened once in a process."""
    check_name(name)
    inside = name.removeprefix(PREFIX)
    try:
        import datasets
    except ImportError:
        raise DataError(f"{name} is read by datasets: pip install 'semcodec[datasets]'") from None
    local = os.path.isdir(inside)
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("HF_DATASETS_OFFLINE")
    if not local and not offline and (absent := unreachable(os.environ.get("HF_ENDPOINT") or HUB)):
        raise DataError(f"{name} cannot be fetched: {absent}; set HF_HUB_OFFLINE=1 for what was fetched before")
    repository, _, revision = inside.partition("@")
    try:
        datasets.disable_progress_bars()
        if local and any(os.path.isfile(os.path.join(inside, one)) for one in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(inside)
        else:
            found = datasets.load_dataset(inside if local else repository, revision=revision or None)
        tables = {str(k): v for k, v in found.items()} if isinstance(found, dict) else {"train": found}
        for split, table in tables.items():
            for column, feature in table.features.items():
                if type(feature).__name__ == "Image":
                    tables[split] = tables[split].cast_column(column, datasets.Image(decode=False))
        return {split: table for split, table in tables.items() if len(table)} or _empty(name)
    except SemcodecError:
        raise
    except Exception as error:  # its errors are of many kinds, of what is there, of the network, of its formats
        raise DataError(f"{name} cannot be read ({first_line(error)[:160]})") from error


def _empty(name: str) -> dict[str, Any]:
    raise DataError(f"{name}: has no samples")


def _chosen(name: str, tables: Mapping[str, Any], split: str) -> list[str]:
    if split == "all" or len(tables) == 1:
        return list(tables)
    wanted = next((one for one in (("train",) if split == "train" else TEST) if one in tables), None)
    if wanted is None:
        raise EmptySplitError(f"{name}: nothing is for {split!r}; its splits are {', '.join(tables)}")
    return [wanted]


def _column(name: str, features: Mapping[str, Any], usual: Sequence[str], kind: str, words: str) -> str:
    """The column of a kind of feature, one of the usual names before others."""
    found = [column for column, feature in features.items() if type(feature).__name__ == kind]
    column = next((one for one in (*usual, *found) if one in found), None)
    if column is None:
        raise DataError(f"{name}: has no column {words}; its columns are {', '.join(features)}")
    return column


def _classes(name: str, features: Mapping[str, Any], tables: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The column of classes and their names: the feature's, else the values that occur."""
    named = [column for column, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    column = next((one for one in (*LABEL, *named) if one in named), None)
    if column is not None:
        return column, [str(one) for one in features[column].names]
    column = next((one for one in LABEL if type(features.get(one)).__name__ == "Value"), None)
    if column is None:
        raise DataError(f"{name}: has no column of classes; its columns are {', '.join(features)}")
    values = {value for table in tables.values() for value in table.unique(column)}
    if len(values) > 1 << 16:
        raise DataError(f"{name}: its column {column} has {len(values):,} values, and is none of classes")
    return column, [str(value) for value in sorted(values)]


def _objects(name: str, features: Mapping[str, Any]) -> tuple[str, str, str, list[str]]:
    """The columns of objects, of their boxes and of their classes, and the names of these."""
    column = next((one for one in OBJECTS if one in features), None)
    if column is None:
        raise DataError(f"{name}: has no column objects, with boxes; its columns are {', '.join(features)}")
    inside: Any = features[column]
    inside = getattr(inside, "feature", inside)
    if isinstance(inside, list):
        inside = inside[0]
    box = next((one for one in BOX if one in inside), None)
    category = next((one for one in CATEGORY if one in inside), None)
    if box is None or category is None:
        raise DataError(f"{name}: its {column} have no bbox and category, but {', '.join(inside)}")
    kind = getattr(inside[category], "feature", inside[category])
    names = getattr(kind, "names", None)
    if not names:
        raise DataError(f"{name}: the {category} of its {column} has no names of classes")
    return column, box, category, [str(one) for one in names]
