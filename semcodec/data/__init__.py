"""Data sets by name or folder, and single inputs. Importing this imports nothing heavy.

``open_dataset("digits-motion", "test", Request(16, 96, 96)).batch([0, 1, 2])`` gives pixels and labels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from semcodec.data.base import SPLITS, Dataset, Digest
from semcodec.data.notes import note
from semcodec.data.parts import Part
from semcodec.errors import DataError, UsageError
from semcodec.specs import BOXES, CLASS, LABELS, InputRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from semcodec.data.base import UInt8

__all__ = [
    "SPLITS",
    "Dataset",
    "Digest",
    "Input",
    "Part",
    "Request",
    "check_dataset",
    "check_input",
    "describe",
    "open_dataset",
    "open_input",
    "open_windows",
    "rows",
]


@dataclass(frozen=True)
class _Named:
    target: str
    kind: Literal["video", "image"]
    classes: int
    train: int
    test: int
    description: str


_NAMED = {
    "digits-motion": _Named(
        "semcodec.data.digits:DigitsMotion",
        "video",
        10,
        20_000,
        1_000,
        "clips of a handwritten digit moving over textured ground; the class is the motion",
    ),
    "digits-scenes": _Named(
        "semcodec.data.scenes:DigitsScenes",
        "image",
        10,
        10_000,
        1_000,
        "still scenes of handwritten digits over textured ground, with class and boxes",
    ),
}


_MISSING = {BOXES: "has no boxes, which the model finds; give data in YOLO's layout"}
"""By labels that are asked for, what is said of data without them."""


def open_dataset(
    name_or_path: str, split: str = "test", request: InputRequest | None = None, classes: Sequence[str] | None = None
) -> Dataset:
    """A named set or a folder, at the size that ``request`` wants.

    A folder holds class folders of videos or images, ``images/`` and ``labels.csv``, or ``images/`` and ``labels/``
    with boxes. split: "train" or "test"; for folders also "all". Without a request: clips of 16x224x224 or images of
    224x224. classes: the names of those whose boxes count, where these are not all.
    A ``DataNote`` says where a split is all that there is.
    Raises DataError where nothing of that name or path is there, or it holds the wrong kind, and UsageError.
    """
    dataset = _open_for(name_or_path, split, request, classes)
    if split == "test" and dataset.split is None:
        note(f"{name_or_path}: {dataset.division}: all {len(dataset):,} samples are used")
    return dataset


def open_unlabelled(name_or_path: str, request: InputRequest) -> Dataset:
    """What training without labels takes: the training split of a set or folder, or every file of a folder of any form.

    Raises DataError and UsageError as ``open_dataset``.
    """
    from semcodec.data import unlabelled

    if unlabelled.needed(name_or_path, request):
        return unlabelled.Unlabelled(name_or_path, request)
    return open_dataset(name_or_path, "train", request)


def _open_for(
    name_or_path: str, split: str, request: InputRequest | None, classes: Sequence[str] | None = None
) -> Dataset:
    """``open_dataset`` without its note."""
    dataset = _open(name_or_path, split, request)
    if request is not None and request.labels not in {LABELS.get(task, task) for task in dataset.tasks}:
        raise DataError(f"{name_or_path}: {_MISSING.get(request.labels) or _missing(request.labels)}")
    if classes is None:
        return dataset
    from semcodec.data.chosen import ChosenClasses

    if request is not None and request.labels != BOXES:
        raise UsageError("classes are chosen among boxes, and the model finds none; leave out --classes")
    return ChosenClasses(dataset, classes)


def _open(name_or_path: str, split: str, request: InputRequest | None) -> Dataset:
    named = _NAMED.get(name_or_path)
    if named is not None:
        if split not in SPLITS:
            raise UsageError(f"{name_or_path} has the splits train and test, not {split!r}")
        module, _, name = named.target.partition(":")
        opened: Dataset = getattr(import_module(module), name)(split, request or _default(named.kind))
        return opened
    if not os.path.isdir(name_or_path):
        raise DataError(_unknown(name_or_path))
    from semcodec.data import boxes, labelled
    from semcodec.data.folders import ClassFolders, kind_of

    if boxes.holds(name_or_path):
        return boxes.BoxFolders(
            name_or_path, split, request or InputRequest(None, 224, 224, fit="letterbox", labels=BOXES)
        )
    if labelled.holds(name_or_path):
        return labelled.LabelledImages(name_or_path, split, request or _default("image"))
    return ClassFolders(name_or_path, split, request or _default(kind_of(name_or_path)))


class Input(NamedTuple):
    """One sample. pixels: uint8 with a batch axis of one, (1, T, H, W, 3) or (1, H, W, 3).

    label: the class's number, boxes in these pixels, or what another task's data has; None for a file, as are
    ``classes``, the names. name: of the sample. size: width and height of the source where more than a class is
    requested of images, else None.
    """

    pixels: UInt8
    label: Any
    classes: list[str] | None
    name: str
    size: tuple[int, int] | None


def open_input(text: str, request: InputRequest) -> Input:
    """What ``--input`` names: a file, or DATASET:INDEX, a sample of a test split.

    A file of that very name comes before a data set. Raises DataError.
    """
    if os.path.isfile(text):
        pixels = _read_file(text, request)[None]
        from semcodec.data.files import printable
        from semcodec.data.images import size_of

        size = size_of(text) if request.placed and request.frames is None else None
        return Input(pixels, None, None, printable(text), size)
    name, colon, index = text.rpartition(":")
    if not colon or not index.isdecimal():
        raise DataError(_no_input(text))
    dataset = _open_for(name, "test", request)
    _check_index(name, dataset, int(index))
    rows = [int(index)]
    pixels, labels = dataset.batch(rows)
    label = int(labels[0]) if request.labels == CLASS else labels[0]  # type: ignore[arg-type]
    size = dataset.sizes(rows)[0] if request.placed else None
    return Input(pixels, label, dataset.classes, dataset.ids(rows)[0], size)


def check_dataset(name_or_path: str) -> None:
    """Raise DataError where ``open_dataset`` would find neither a named set nor a folder, at once."""
    if name_or_path not in _NAMED and not os.path.isdir(name_or_path):
        raise DataError(_unknown(name_or_path))


def open_windows(text: str, request: InputRequest, part: Part) -> Iterator[Input]:
    """Clips of a part of a video file, one sample each, named after when it begins, as ``clip.mp4@12.0s``.

    One after the other as they are asked for, in bounded memory. Raises DataError, and UsageError for what is no video
    file or where the model takes images.
    """
    check_input(text, request, part)
    from semcodec.data.files import printable
    from semcodec.data.video import read_windows

    for second, pixels in read_windows(text, request, part):
        yield Input(pixels[None], None, None, f"{printable(text)}@{second:.1f}s", None)


def check_input(text: str, request: InputRequest | None = None, part: Part | None = None) -> None:
    """Raise as ``open_input`` or ``open_windows`` for what can be told without opening it, at once.

    request: None where only building the model tells what it takes.
    """
    if os.path.isfile(text):
        if request is not None:
            _check_kind(text, request)
        if part is not None and request is not None and request.frames is None:
            raise UsageError(f"{text}: the model takes images; a start, a duration and windows are of video files")
        return
    name, colon, index = text.rpartition(":")
    if not colon or not index.isdecimal():
        raise DataError(_no_input(text))
    if part is not None:
        raise UsageError(f"{text} is a sample of a data set; a start, a duration and windows are of video files")
    named = _NAMED.get(name)
    check_dataset(name)
    if named is not None and int(index) >= named.test:
        raise DataError(f"{name} has samples 0 to {named.test - 1} in its test split, not {index}")


def classes_of(text: str) -> list[str] | None:
    """Class names of the data set that an input is a sample of; None for a file. Raises as ``open_input``."""
    if os.path.isfile(text):
        return None
    name, colon, index = text.rpartition(":")
    if not colon or not index.isdecimal():
        raise DataError(_no_input(text))
    dataset = _open_for(name, "test", None)
    _check_index(name, dataset, int(index))
    return dataset.classes


def rows() -> list[dict[str, Any]]:
    """The named sets for listing: name, kind, classes (how many), sizes by split, description."""
    return [
        {
            "name": name,
            "kind": named.kind,
            "classes": named.classes,
            "sizes": {"train": named.train, "test": named.test},
            "description": named.description,
        }
        for name, named in _NAMED.items()
    ]


MEASURED = 64
"""Samples whose entropy ``describe`` measures: the first of the test split, or of all where that is empty."""


def describe(name_or_path: str) -> dict[str, Any]:
    """The same of one set or folder, with the names of its classes and ``entropy_bits``: by channel, order 0."""
    from semcodec.data import boxes, folders, labelled

    found: dict[str, Any] | None = next((row for row in rows() if row["name"] == name_or_path), None)
    if found is None:
        if not os.path.isdir(name_or_path):
            raise DataError(_unknown(name_or_path))
        forms = (form for form in (boxes, labelled) if form.holds(name_or_path))
        found = next(forms, folders).summary(name_or_path)
    from semcodec.data.order0 import order0

    dataset: Dataset
    split = "test" if found["sizes"]["test"] else "all"
    request = InputRequest(16 if found["kind"] == "video" else None, 64, 64)
    if boxes.holds(name_or_path):
        boxed = boxes.BoxFolders(name_or_path, split, replace(request, fit="letterbox", labels=BOXES))
        dataset, pictures = boxed, partial(boxed.pictures, request=request)
    else:
        dataset = _open(name_or_path, split, request)
        pictures = partial(_pixels, dataset)
    pixels, wrong = _what_can_be_read(pictures, min(MEASURED, len(dataset)))
    if wrong:
        of = f"{len(wrong)} of the first {len(wrong) + len(pixels)} samples cannot be read"
        found["description"] += f"; {of}: {wrong[0]}"
    return found | {"classes": list(dataset.classes), "entropy_bits": order0(pixels)}


def _missing(labels: str) -> str:
    return f"has no labels of the kind {labels!r}, which the model's task needs; choose other data"


def _pixels(dataset: Dataset, indices: Sequence[int]) -> UInt8:
    return dataset.batch(indices)[0]


def _what_can_be_read(read: Callable[[Sequence[int]], UInt8], count: int) -> tuple[UInt8, list[DataError]]:
    """Pixels of the first ``count`` samples less those that cannot be read, and what is wrong with these.

    Raises DataError where none can be read.
    """
    import numpy as np

    pixels, wrong = [], []
    for index in range(count):
        try:
            pixels.append(read([index]))
        except DataError as error:
            wrong.append(error)
    if not pixels:
        raise wrong[0]
    return np.concatenate(pixels), wrong


def _default(kind: str) -> InputRequest:
    return InputRequest(16 if kind == "video" else None, 224, 224)


def _read_file(path: str, request: InputRequest) -> UInt8:
    from semcodec.data import images, video

    _check_kind(path, request)
    return images.read_image(path, request) if request.frames is None else video.read_only_clip(path, request)


def _check_kind(path: str, request: InputRequest) -> None:
    """Raise DataError for a file whose ending is of the other kind than the model takes."""
    from semcodec.data import folders

    suffix = os.path.splitext(path)[1].lower()
    if request.frames is None:
        if suffix in folders.VIDEO_SUFFIXES - {".gif"}:  # of which an image is the first frame
            raise DataError(f"{path}: is a video where the model takes images")
    elif suffix in folders.IMAGE_SUFFIXES:
        raise DataError(f"{path}: is an image where the model takes clips")


def _unknown(text: str) -> str:
    if os.path.isfile(text):
        return f"{text} is a file where a data set is wanted: a name ({', '.join(_NAMED)}) or a folder"
    hint = _suggestion(text) or f"; named sets are {', '.join(_NAMED)}"
    return f"no such data set or folder: {text}{hint}"


def _check_index(name: str, dataset: Dataset, index: int) -> None:
    if index >= len(dataset):
        how = f" ({dataset.division})" if dataset.division else ""
        raise DataError(f"{name} has samples 0 to {len(dataset) - 1} in its test split{how}, not {index}")


def _no_input(text: str) -> str:
    if text in _NAMED or os.path.isdir(text):
        what = "data set" if text in _NAMED else "folder"
        return f"{text} is a {what}; name one of its samples, as in {text}:0"
    return f"no such file or data set: {text}{_suggestion(text.rpartition(':')[0] or text)}"


def _suggestion(text: str) -> str:
    close = get_close_matches(text, _NAMED, 1)
    return f"; did you mean {close[0]}?" if close else ""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from semcodec._moved import moved_name

        return moved_name(__name__, name)
