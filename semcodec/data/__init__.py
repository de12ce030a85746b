"""Data sets by name or folder, and single inputs. Importing this imports nothing heavy.

``open_dataset("digits-motion", "test", Request(16, 96, 96)).batch([0, 1, 2])`` gives pixels and labels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from semcodec.data.base import SPLITS, Dataset, Digest, Request
from semcodec.errors import DataError, UsageError

if TYPE_CHECKING:
    from semcodec.data.base import UInt8

__all__ = ["SPLITS", "Dataset", "Digest", "Request", "describe", "open_dataset", "open_input", "rows"]


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


def open_dataset(name_or_path: str, split: str = "test", request: Request | None = None) -> Dataset:
    """A named set or a folder, at the size that ``request`` wants.

    A folder holds class folders of videos or images, or ``images/`` and ``labels.csv``. split: "train" or "test"; for
    folders also "all". Without a request: clips of 16x224x224 or images of 224x224.
    Raises DataError where nothing of that name or path is there, or it holds the wrong kind.
    """
    named = _NAMED.get(name_or_path)
    if named is not None:
        if split not in SPLITS:
            raise UsageError(f"{name_or_path} has the splits train and test, not {split!r}")
        module, _, name = named.target.partition(":")
        opened: Dataset = getattr(import_module(module), name)(split, request or _default(named.kind))
        return opened
    if not os.path.isdir(name_or_path):
        raise DataError(_unknown(name_or_path))
    from semcodec.data import labelled
    from semcodec.data.folders import ClassFolders, kind_of

    if labelled.holds(name_or_path):
        return labelled.LabelledImages(name_or_path, split, request or _default("image"))
    return ClassFolders(name_or_path, split, request or _default(kind_of(name_or_path)))


def open_input(text: str, request: Request) -> tuple[UInt8, int | None, list[str] | None, str]:
    """What ``--input`` names: a file, or DATASET:INDEX, a sample of a test split.

    Returns uint8 pixels with a batch axis of one, (1, T, H, W, 3) or (1, H, W, 3), and the label, the classes (both
    None for a file) and the sample's name. A file of that very name comes before a data set. Raises DataError.
    """
    if os.path.isfile(text):
        return _read_file(text, request)[None], None, None, text
    name, colon, index = text.rpartition(":")
    if not colon or not index.isdecimal():
        raise DataError(_no_input(text))
    dataset = open_dataset(name, "test", request)
    _check_index(name, dataset, int(index))
    pixels, labels = dataset.batch([int(index)])
    return pixels, int(labels[0]), dataset.classes, dataset.ids([int(index)])[0]


def classes_of(text: str) -> list[str] | None:
    """Class names of the data set that an input is a sample of; None for a file. Raises as ``open_input``."""
    if os.path.isfile(text):
        return None
    name, colon, index = text.rpartition(":")
    if not colon or not index.isdecimal():
        raise DataError(_no_input(text))
    dataset = open_dataset(name)
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
    found: dict[str, Any] | None = next((row for row in rows() if row["name"] == name_or_path), None)
    if found is None:
        if not os.path.isdir(name_or_path):
            raise DataError(_unknown(name_or_path))
        from semcodec.data import folders, labelled

        found = (labelled if labelled.holds(name_or_path) else folders).summary(name_or_path)
    from semcodec.metrics import order0

    request = Request(16 if found["kind"] == "video" else None, 64, 64)
    dataset = open_dataset(name_or_path, "test" if found["sizes"]["test"] else "all", request)
    pixels, _ = dataset.batch(range(min(MEASURED, len(dataset))))
    return found | {"classes": list(dataset.classes), "entropy_bits": order0(pixels)}


def _default(kind: str) -> Request:
    return Request(16 if kind == "video" else None, 224, 224)


def _read_file(path: str, request: Request) -> UInt8:
    from semcodec.data import folders, images, video

    suffix = os.path.splitext(path)[1].lower()
    if request.frames is None:
        if suffix in folders.VIDEO_SUFFIXES - {".gif"}:  # of which an image is the first frame
            raise DataError(f"{path}: is a video where the model takes images")
        return images.read_image(path, request)
    if suffix in folders.IMAGE_SUFFIXES:
        raise DataError(f"{path}: is an image where the model takes clips")
    return video.read_clip(path, request)


def _unknown(text: str) -> str:
    if os.path.isfile(text):
        return f"{text} is a file where a data set is wanted: a name ({', '.join(_NAMED)}) or a folder"
    hint = _suggestion(text) or f"; named sets are {', '.join(_NAMED)}"
    return f"no such data set or folder: {text}{hint}"


def _check_index(name: str, dataset: Dataset, index: int) -> None:
    if index >= len(dataset):
        raise DataError(f"{name} has samples 0 to {len(dataset) - 1} in its test split, not {index}")


def _no_input(text: str) -> str:
    if text in _NAMED or os.path.isdir(text):
        what = "data set" if text in _NAMED else "folder"
        return f"{text} is a {what}; name one of its samples, as in {text}:0"
    return f"no such file or data set: {text}{_suggestion(text.rpartition(':')[0] or text)}"


def _suggestion(text: str) -> str:
    close = get_close_matches(text, _NAMED, 1)
    return f"; did you mean {close[0]}?" if close else ""
