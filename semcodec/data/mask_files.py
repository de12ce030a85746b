"""Masks of classes in PNG files: which number is which class, and how one is read beside its picture."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semcodec.class_masks import IGNORED, MOST_CLASSES
from semcodec.data.base import Dataset
from semcodec.data.class_names import read_yaml
from semcodec.data.contents import digest_of, file_digests
from semcodec.data.files import printable
from semcodec.data.images import read_image, size_of
from semcodec.errors import DataError, first_line
from semcodec.specs import MASKS, InputRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from semcodec.data.base import Labels, UInt8

NAMES = "classes.yaml"
UNKNOWN = {"unlabeled", "unlabelled", "void", "ignore", "ignored"}
"""Names of classes that are none: pixels of theirs count for nothing."""
_NONE = -1
_MODES = ("L", "P", "1")


@dataclass(frozen=True)
class Numbers:
    """What the numbers in mask files mean. classes: names in order. place: int16 (256,), by number the class's place,

    ``IGNORED``, or -1 for a number that stands for nothing. where: what says so, for messages.
    """

    classes: list[str]
    place: npt.NDArray[np.int16]
    where: str

    @classmethod
    def of(cls, names: Iterable[tuple[int, str]], ignored: Iterable[int], where: str) -> Numbers:
        """Of numbers with the names of their classes, in order, and of those that count for nothing."""
        place = np.full(256, _NONE, np.int16)
        classes: list[str] = []
        for number, name in names:
            if name.lower() in UNKNOWN:
                place[number] = IGNORED
            else:
                place[number] = len(classes)
                classes.append(name)
        place[list(ignored)] = IGNORED
        return cls(classes, place, where)

    @classmethod
    def read(cls, path: Path) -> Numbers:
        """``classes.yaml``: ``classes`` is a map of numbers to names or a list from 0, ``ignored`` a list of numbers

        that count for nothing, 255 where it is left out; so do classes with names such as "unlabeled" and "void".
        Raises DataError.
        """
        found = read_yaml(path)
        named = found.get("classes", found.get("names")) if isinstance(found, dict) else None
        ignored = found.get("ignored", [str(IGNORED)]) if isinstance(found, dict) else []
        return cls.named(named, ignored, path)

    @classmethod
    def named(cls, named: object, ignored: object, path: Path) -> Numbers:
        """Of names by number, or a list of them from 0, and of numbers that count for nothing. path: of what says so.

        Raises DataError.
        """
        if isinstance(named, list):
            named = {str(number): name for number, name in enumerate(named)}
        if not isinstance(named, dict) or not named:
            raise DataError(f"{path}: has no classes, as in classes: {{0: background, 1: cat}} or a list of names")
        names = [(_number(path, number), name) for number, name in named.items()]
        if not isinstance(ignored, list):
            raise DataError(f"{path}: ignored is a list of numbers, as in ignored: [0, 255]")
        if any(not isinstance(name, str) or not name for _, name in names):
            raise DataError(f"{path}: a class has no name, or one that is no text")
        for taken in ([number for number, _ in names], [name for _, name in names]):
            if len(set(taken)) < len(taken):
                raise DataError(f"{path}: names a class twice")
        numbers = cls.of(sorted(names), [_number(path, one) for one in ignored], str(path))
        if not 0 < len(numbers.classes) <= MOST_CLASSES:
            raise DataError(f"{path}: names {len(numbers.classes)} classes where 1 to {MOST_CLASSES} can be")
        return numbers


def _number(path: Path, text: object) -> int:
    if not isinstance(text, str) or not text.isdecimal() or int(text) > 255:
        raise DataError(f"{path}: {text!r} is no number of a class, 0 to 255")
    return int(text)


def read_mask(path: Path, size: tuple[int, int], numbers: Numbers, data: bytes | None = None) -> UInt8:
    """A mask of the picture of ``size``, width and height, as ``semcodec.class_masks`` has them.

    data: what the file holds, where it is none of its own; ``path`` is then its name in messages.

    Raises DataError for a file that cannot be read, has colours instead of numbers, another size than the picture, or
    a number that stands for nothing.
    """
    with _mask_file(path, size, data) as values:
        found: npt.NDArray[np.int16] = numbers.place[values]
    unknown = np.unique(values[found == _NONE])
    if unknown.size:
        listed = ", ".join(map(str, unknown[:3].tolist()))
        raise DataError(f"{path}: has the number {listed}, which {numbers.where} does not name")
    return found.astype(np.uint8)


@contextmanager
def _mask_file(path: Path, size: tuple[int, int], data: bytes | None) -> Iterator[UInt8]:
    from PIL import Image

    if data is None and not path.is_file():
        raise DataError(f"no such mask: {path}")
    try:
        with Image.open(path if data is None else io.BytesIO(data)) as image:
            if image.size != size:
                theirs, own = ("x".join(map(str, one)) for one in (size, image.size))
                raise DataError(f"{path}: is a mask of {own} pixels where its picture has {theirs}")
            if image.mode not in _MODES:
                raise DataError(
                    f"{path}: is of the mode {image.mode}; a mask has one 8-bit number a pixel, grey or palette"
                )
            values = np.asarray(image).astype(np.uint8)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files
        raise DataError(f"{path}: cannot be read as a mask ({first_line(error)})") from error
    yield values


class MaskFiles(Dataset):
    """Pictures under ``images`` with masks under ``masks``, by (picture, mask) as paths relative to these.

    Raises DataError where the model takes no masks.
    """

    kind = "image"
    natural = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        images: Path,
        masks: Path,
        files: Sequence[tuple[str, str]],
        numbers: Numbers,
        request: InputRequest,
    ) -> None:
        if request.labels != MASKS:
            takes = "clips" if request.kind == "video" else "images of one class each"
            raise DataError(f"{root}: holds masks for segmentation, and the model takes {takes}; choose other data")
        self.root, self.images, self.masks, self.name = Path(root), images, masks, printable(str(root))
        self.request, self.numbers, self.classes = request, numbers, list(numbers.classes)
        self._files = list(files)

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("segmentation",)

    def __len__(self) -> int:
        return len(self._files)

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        sizes = self.sizes(indices)
        masks = [
            read_mask(self.masks / self._files[index][1], size, self.numbers)
            for index, size in zip(indices, sizes, strict=True)
        ]
        return self.pictures(indices, self.request), masks

    def pictures(self, indices: Sequence[int], request: InputRequest) -> UInt8:
        """The pictures as ``request`` wants them, (B, H, W, 3)."""
        pixels = np.empty((len(indices), *request.shape), np.uint8)
        for row, index in enumerate(indices):
            pixels[row] = read_image(self.images / self._files[index][0], request)
        return pixels

    def sizes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        return [size_of(self.images / self._files[index][0]) for index in indices]

    def content(self, count: int) -> str:
        chosen = self._files[:count]
        pictures = file_digests(self.images, (picture for picture, _ in chosen))
        masks = file_digests(self.masks, (mask for _, mask in chosen))
        return digest_of([self.classes, self.numbers.place.tolist(), *zip(pictures, masks, strict=True)])

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Paths relative to the folder of pictures."""
        return [printable(self._files[i][0]) for i in indices]


def mask_request() -> InputRequest:
    """Where nobody asks for a size."""
    return InputRequest(None, 224, 224, fit="letterbox", labels=MASKS)


def small(request: InputRequest) -> InputRequest:
    """The same for one pixel, where none is read."""
    return replace(request, height=1, width=1)
