"""Single inputs: what a command or a caller names as one sample, a file or a sample of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from semcodec.data.base import Dataset
from semcodec.data.datasets import NAMED, check_dataset, is_named, open_quietly, suggest
from semcodec.data.parts import Part
from semcodec.errors import DataError, UsageError
from semcodec.specs import CLASS, InputRequest

if TYPE_CHECKING:
    from PIL.Image import Image

    from semcodec.data.base import UInt8

    Sample = UInt8 | Image | str | os.PathLike[str]


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
    dataset = open_quietly(name, "test", request)
    _check_index(name, dataset, int(index))
    rows = [int(index)]
    pixels, labels = dataset.batch(rows)
    label = int(labels[0]) if request.labels == CLASS else labels[0]  # type: ignore[arg-type]
    size = dataset.sizes(rows)[0] if request.placed else None
    return Input(pixels, label, dataset.classes, dataset.ids(rows)[0], size)


def open_windows(text: str, request: InputRequest, part: Part) -> Iterator[Input]:
    """Clips of a part of a video file, one sample each, named after when it begins, as ``clip.mp4@12.00s``.

    One after the other as they are asked for, in bounded memory. Raises DataError, and UsageError for what is no video
    file or where the model takes images.
    """
    check_input(text, request, part)
    from semcodec.data.files import printable
    from semcodec.data.video import read_windows

    for second, pixels in read_windows(text, request, part):
        yield Input(pixels[None], None, None, f"{printable(text)}@{second:.2f}s", None)


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
    named = NAMED.get(name)
    check_dataset(name)
    if named is not None and int(index) >= named.test:
        raise DataError(f"{name} has samples 0 to {named.test - 1} in its test split, not {index}")


def classes_of(text: str, task: str | None = None) -> list[str] | None:
    """Class names, for that task, of the data set that an input is a sample of; None for a file.

    Raises as ``open_input``.
    """
    if os.path.isfile(text):
        return None
    name, colon, index = text.rpartition(":")
    if not colon or not index.isdecimal():
        raise DataError(_no_input(text))
    dataset = open_quietly(name, "test", None, task=task)
    _check_index(name, dataset, int(index))
    return dataset.classes


def read(source: Sample, request: InputRequest) -> tuple[UInt8, tuple[int, int] | None]:
    """uint8 pixels with a batch axis of one, as ``request`` wants them, and the source's size where that counts.

    An array is taken as it is: (T, H, W, 3) or (H, W, 3) of the size that the model takes. A Pillow image and a file
    are turned upright, resized and cropped, or letterboxed; "DATASET:INDEX" is a sample of a test split.
    Raises DataError for what cannot be read, UsageError for anything else.
    """
    if isinstance(source, str | os.PathLike):
        found = open_input(os.fspath(source), request)
        return found.pixels, found.size
    from PIL.Image import Image

    if isinstance(source, Image):
        if request.frames is not None:
            raise DataError(f"the model takes clips of {request.frames} frames, not one image")
        from semcodec.data.images import from_picture

        pixels, size = from_picture(source, request)
        return pixels[None], size if request.placed else None
    if not hasattr(source, "__array__"):
        what = f"{type(source).__module__}.{type(source).__qualname__}"
        raise UsageError(f"encode takes uint8 pixels, a Pillow image, a path or 'DATASET:INDEX', not {what}")
    pixels = np.asarray(source)
    if pixels.dtype != np.uint8 or pixels.shape != request.shape:
        other = " (a Pillow image is resized)" if request.frames is None else ""
        raise DataError(
            f"an array is one sample of uint8 {list(request.shape)}, not {pixels.dtype} {list(pixels.shape)}{other}"
        )
    return pixels[None], None


def _read_file(path: str, request: InputRequest) -> UInt8:
    _check_kind(path, request)
    if request.frames is None:
        from semcodec.data.images import read_image

        return read_image(path, request)
    from semcodec.data.video import read_only_clip

    return read_only_clip(path, request)


def _check_kind(path: str, request: InputRequest) -> None:
    """Raise DataError for a file whose ending is of the other kind than the model takes."""
    from semcodec.data.folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES

    suffix = os.path.splitext(path)[1].lower()
    if request.frames is None:
        if suffix in VIDEO_SUFFIXES - {".gif"}:  # of which an image is the first frame
            raise DataError(f"{path}: is a video where the model takes images")
    elif suffix in IMAGE_SUFFIXES:
        raise DataError(f"{path}: is an image where the model takes clips")


def _check_index(name: str, dataset: Dataset, index: int) -> None:
    if index >= len(dataset):
        how = f" ({dataset.division})" if dataset.division else ""
        raise DataError(f"{name} has samples 0 to {len(dataset) - 1} in its test split{how}, not {index}")


def _no_input(text: str) -> str:
    if text in NAMED or is_named(text) or os.path.isdir(text):
        what = "folder" if os.path.isdir(text) else "data set"
        files = f", or its files, as in {text}/*" if os.path.isdir(text) else ""
        return f"{text} is a {what}; name one of its samples, as in {text}:0{files}"
    return f"no such file or data set: {text}{suggest(text.rpartition(':')[0] or text)}"
