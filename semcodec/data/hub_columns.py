"""What a table of the hub has beside its pictures: classes, objects with boxes in COCO's form, or masks.

Which column it is, its features say; names of the classes of masks stand in a file beside the table.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from semcodec._files import read_regular
from semcodec._typed import read_json
from semcodec.class_masks import IGNORED
from semcodec.data.mask_files import NAMES, Numbers, read_mask
from semcodec.errors import DataError, first_line
from semcodec.specs import BOXES, CLASS, MASKS, InputRequest

if TYPE_CHECKING:
    from semcodec.boxes import Boxes
    from semcodec.data.base import UInt8

IMAGE = ("image", "img", "picture", "pixel_values")
LABEL = ("label", "labels", "class", "fine_label", "target")
MASK = ("mask", "masks", "annotation", "label", "labels", "segmentation", "segmentation_mask", "annotated")
OBJECTS, BOX, CATEGORY = (
    ("objects", "annotations"),
    ("bbox", "boxes"),
    ("category", "categories", "label", "category_id"),
)
NAMED_BY = "id2label.json"
"""Beside a table with masks, or ``classes.yaml``: what names their numbers."""
LARGEST, LARGEST_NAMES = 1 << 28, 1 << 20
"""Bytes of one picture, and of a file of names."""


class Column(ABC):
    """One kind of label. name: of the data set. tables: its tables by split.

    task: what models can do with it. words: what images come with. Raises DataError where there is no such column.
    """

    task: ClassVar[str]
    words: ClassVar[str]
    classes: list[str]

    def __init__(self, name: str, tables: Mapping[str, Any]) -> None:
        self.name, self.features = name, next(iter(tables.values())).features

    @classmethod
    @abstractmethod
    def there(cls, features: Mapping[str, Any]) -> bool:
        """Whether a table of these features looks as if it has one."""

    @abstractmethod
    def read(self, entry: Mapping[str, Any], size: tuple[int, int], request: InputRequest, where: str) -> Any:
        """The label of a row whose picture has ``size``, width and height. where: its name in messages.

        Raises DataError.
        """

    @abstractmethod
    def told(self, entry: Mapping[str, Any]) -> Any:
        """The same as the row has it, for digests."""


class Classes(Column):
    """One class for each picture, by a feature with names, or words or numbers that are the classes."""

    task, words = "classification", "one class each"

    def __init__(self, name: str, tables: Mapping[str, Any]) -> None:
        super().__init__(name, tables)
        named = _of_kind(self.features, "ClassLabel")
        column = next((one for one in (*LABEL, *named) if one in named), None)
        self.by_number = column is not None
        if column is not None:
            self.column, self.classes = column, [str(one) for one in self.features[column].names]
        else:
            self.column, self.classes = self._values(tables)
        self.places = {value: place for place, value in enumerate(self.classes)}

    def _values(self, tables: Mapping[str, Any]) -> tuple[str, list[str]]:
        column = next((one for one in LABEL if type(self.features.get(one)).__name__ == "Value"), None)
        if column is None:
            raise DataError(f"{self.name}: has no column of classes; its columns are {', '.join(self.features)}")
        values = {value for table in tables.values() for value in table.unique(column)}
        if len(values) > 1 << 16:
            raise DataError(f"{self.name}: its column {column} has {len(values):,} values, and is none of classes")
        return column, [str(value) for value in sorted(values)]

    @classmethod
    def there(cls, features: Mapping[str, Any]) -> bool:
        return any(one in features and type(features[one]).__name__ != "Image" for one in LABEL)

    def read(self, entry: Mapping[str, Any], size: tuple[int, int], request: InputRequest, where: str) -> int:
        place = self.told(entry)
        if place is None or not 0 <= place < len(self.classes):  # as -1, of a split whose labels are kept secret
            raise DataError(f"{where}: has no label")
        return int(place)

    def told(self, entry: Mapping[str, Any]) -> Any:
        value = entry[self.column]
        return value if self.by_number else self.places.get(str(value))


class Objects(Column):
    """Boxes, left, top, width and height in pixels, each with its class."""

    task, words = "detection", "objects with boxes"

    def __init__(self, name: str, tables: Mapping[str, Any]) -> None:
        super().__init__(name, tables)
        column = next((one for one in OBJECTS if one in self.features), None)
        if column is None:
            raise DataError(f"{name}: has no column objects, with boxes; its columns are {', '.join(self.features)}")
        inside: Any = self.features[column]
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
        self.column, self.box, self.category, self.classes = column, box, category, [str(one) for one in names]

    @classmethod
    def there(cls, features: Mapping[str, Any]) -> bool:
        return any(one in features for one in OBJECTS)

    def read(self, entry: Mapping[str, Any], size: tuple[int, int], request: InputRequest, where: str) -> Boxes:
        from semcodec.boxes import Boxes, Letterbox

        told = entry[self.column]
        if isinstance(told, list):  # one record an object, as newer versions give them
            told = {key: [one[key] for one in told] for key in (self.box, self.category)}
        try:
            corners = np.array(told[self.box], np.float64).reshape(-1, 4)
        except (TypeError, ValueError):
            raise DataError(f"{where}: its boxes are not four numbers each") from None
        corners[:, 2:] += corners[:, :2]
        classes = np.array(told[self.category], np.int64).reshape(-1)
        if not np.isfinite(corners).all() or len(classes) != len(corners):
            raise DataError(f"{where}: its boxes are not finite, or not as many as their classes")
        if classes.size and not 0 <= classes.min() <= classes.max() < len(self.classes):
            raise DataError(f"{where}: a class is none of 0 to {len(self.classes) - 1}")
        corners = np.clip(corners, 0, np.array([*size, *size], np.float64))
        return Letterbox.of(*size, request.width, request.height).to_input(Boxes.of(corners, classes))

    def told(self, entry: Mapping[str, Any]) -> Any:
        return entry[self.column]


class Masks(Column):
    """A second picture of the same size, whose pixels are numbers of classes, as ``semcodec.class_masks`` has them."""

    task, words = "segmentation", "masks"

    def __init__(self, name: str, tables: Mapping[str, Any]) -> None:
        super().__init__(name, tables)
        image, pictures = image_column(name, self.features), _of_kind(self.features, "Image")
        column = next((one for one in MASK if one in pictures and one != image), None)
        if column is None:
            raise DataError(f"{name}: has no column of masks; its columns are {', '.join(self.features)}")
        self.column, self.numbers = column, _numbers(name)
        self.classes = list(self.numbers.classes)

    @classmethod
    def there(cls, features: Mapping[str, Any]) -> bool:
        pictures = _of_kind(features, "Image")
        return len(pictures) > 1 and any(one in MASK for one in pictures)

    def read(self, entry: Mapping[str, Any], size: tuple[int, int], request: InputRequest, where: str) -> UInt8:
        data = image_bytes(entry, self.column, where)
        return read_mask(Path(f"{where}, its {self.column}"), size, self.numbers, data)

    def told(self, entry: Mapping[str, Any]) -> Any:
        data = image_bytes(entry, self.column, self.name)
        return hashlib.sha256(data).hexdigest(), self.numbers.place.tolist()


COLUMNS: dict[str, type[Column]] = {CLASS: Classes, BOXES: Objects, MASKS: Masks}
"""By what a model takes; the first that there is where nobody asks."""


def image_column(name: str, features: Mapping[str, Any]) -> str:
    """The column of pictures, one of the usual names before others. Raises DataError where there is none."""
    found = _of_kind(features, "Image")
    column = next((one for one in (*IMAGE, *found) if one in found), None)
    if column is None:
        raise DataError(f"{name}: has no column of images; its columns are {', '.join(features)}")
    return column


def image_bytes(entry: Mapping[str, Any], column: str, where: str) -> bytes:
    """The file that a row has in a column of pictures. Raises DataError where there is none."""
    image = entry[column] or {}
    data = image.get("bytes")
    if data is None and image.get("path"):
        try:
            data = read_regular(Path(image["path"]), LARGEST)
        except OSError as error:
            raise DataError(f"{where}: {error.strerror or error}") from error
    if not data:
        raise DataError(f"{where}: has no picture in its column {column}")
    return bytes(data)


def _of_kind(features: Mapping[str, Any], kind: str) -> Sequence[str]:
    return [column for column, feature in features.items() if type(feature).__name__ == kind]


def _numbers(name: str) -> Numbers:
    """What the numbers of masks mean, by a file beside the table. Raises DataError where there is none."""
    inside = name.removeprefix("hf:")
    for file in (NAMED_BY, NAMES):
        path = Path(inside) / file if os.path.isdir(inside) else _fetched(inside, file)
        if path is None or not path.is_file():
            continue
        if file == NAMES:
            return Numbers.read(path)
        try:
            named = read_json(read_regular(path, LARGEST_NAMES), dict[str, str])
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: does not name classes by their numbers ({first_line(error)})") from error
        return Numbers.named(named, [str(IGNORED)], path)
    example = '{"0": "road"}'
    raise DataError(
        f"{name}: nothing names the numbers of its masks: {NAMED_BY}, as in {example}, or {NAMES} beside it"
    )


def _fetched(inside: str, file: str) -> Path | None:
    """A file of a data set's repository on the hub, where it has one."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = inside.partition("@")
    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision or None))
    except EntryNotFoundError:
        return None
    except Exception as error:  # of the network, of the cache, of what the hub says
        raise DataError(f"hf:{inside}: its {file} cannot be fetched ({first_line(error)[:160]})") from error
