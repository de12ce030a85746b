"""Images in tar files, webdataset's form: ``root/train-000.tar`` with ``0001.jpg``, ``0001.cls`` and so on.

Of a tar its headers are read once; a sample is read where it lies. Nothing is unpacked, and nothing that runs code when
it is read, such as a pickle, is read at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from semcodec.data.base import Dataset, EmptySplitError, check_images, check_split, summary_of
from semcodec.data.contents import digest_of
from semcodec.data.files import printable, read_lines, visible
from semcodec.data.folders import IMAGE_SUFFIXES
from semcodec.data.images import read_bytes
from semcodec.data.split_folders import PREFIXES
from semcodec.errors import DataError, first_line
from semcodec.specs import CLASS, InputRequest

if TYPE_CHECKING:
    from semcodec.data.base import Int64, UInt8

GIVES = (CLASS,)
SUFFIX, NAMES = ".tar", "classes.txt"
LABELS = (".cls", ".txt", ".json")
"""Endings of what says a sample's class: its number or name, or an object with one of ``KEYS``."""
KEYS = ("label", "class", "cls")
LARGEST, LARGEST_LABEL, LARGEST_HEADER = 1 << 28, 1 << 16, 1 << 20
"""Bytes of a picture, of a label, and of what describes a member of a tar."""
MOST = 20_000_000
"""Members of one tar."""


class Place(NamedTuple):
    """Where a member lies in a tar."""

    offset: int
    size: int


class Sample(NamedTuple):
    """One sample: its tar, its name there, its picture and its label."""

    shard: str
    key: str
    image: Place
    label: Place
    ending: str


class _Bounded(io.FileIO):
    """A file of which nobody reads much at once: tarfile takes a header's word for how long what follows is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > LARGEST_HEADER:
            raise DataError(f"describes a member in more than the {LARGEST_HEADER:,} bytes that are read")
        return super().read(size) or b""


class Shards(Dataset):
    """Images with a class each, of tar files in a folder, in the order of their names.

    Tars of the split "train" begin with train, those of "test" with val or test; where none begins so, all are for the
    test. ``classes.txt`` names the classes, one a line, that numbers count; without it the labels that occur are the
    classes, sorted. Raises DataError, naming tar and member, for a sample without a label, or whose label is none.
    """

    kind = "image"
    varies = True

    def __init__(self, root: str | os.PathLike[str], split: str, request: InputRequest) -> None:
        check_split(split)
        check_images(root, request)
        self.root, self.request, self.name = Path(root), request, printable(str(root))
        shards = _shards(self.root)
        parted = any(name.lower().startswith(p) for name in shards for prefixes in PREFIXES.values() for p in prefixes)
        self.split = split if parted else None
        self.division = "by the names of its tars" if parted else "no tar is named after a split"
        begins = PREFIXES.get(split, ("",)) if parted else ("",)
        chosen = [name for name in shards if name.lower().startswith(begins)]
        if not parted and split == "train":
            chosen = []
        self._samples = [sample for name in chosen for sample in _samples(self.root, name)]
        if not self._samples:
            raise EmptySplitError(f"{root}: has no sample of split {split!r}")
        self._whole = shards

    def __len__(self) -> int:
        return len(self._samples)

    @cached_property
    def classes(self) -> list[str]:  # type: ignore[override]
        """Those that ``classes.txt`` names, or all that occur in any tar."""
        path = self.root / NAMES
        if path.is_file():
            return [line for line in read_lines(path) if line]
        found = {self._text(sample) for name in self._whole for sample in _samples(self.root, name)}
        numbers = all(one.isdecimal() for one in found)
        return sorted(found, key=int) if numbers else sorted(found)

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Int64]:
        pixels = np.empty((len(indices), *self.request.shape), np.uint8)
        for row, index in enumerate(indices):
            sample = self._samples[index]
            pixels[row] = read_bytes(self._read(sample, sample.image), _where(self.root, sample), self.request)[0]
        return pixels, np.array([self._class(self._samples[i]) for i in indices], np.int64)

    def content(self, count: int) -> str:
        chosen = self._samples[:count]
        pictures = (hashlib.sha256(self._read(sample, sample.image)).hexdigest() for sample in chosen)
        return digest_of([self.classes, *zip(pictures, map(self._class, chosen), strict=True)])

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Tar and name within it."""
        return [printable(f"{self._samples[i].shard}/{self._samples[i].key}") for i in indices]

    def _read(self, sample: Sample, place: Place) -> bytes:
        try:
            with open(self.root / sample.shard, "rb") as file:
                file.seek(place.offset)
                data = file.read(place.size)
        except OSError as error:
            raise DataError(f"{self.root / sample.shard} cannot be read: {error.strerror}") from error
        if len(data) < place.size:
            raise DataError(f"{_where(self.root, sample)}: the tar ends within it")
        return data

    def _text(self, sample: Sample) -> str:
        """What a sample's label says, a number or a name."""
        try:
            text = self._read(sample, sample.label).decode()
            if sample.ending == ".json":
                told = json.loads(text)
                text = next(str(told[key]) for key in KEYS if isinstance(told.get(key), str | int))
        except (UnicodeDecodeError, ValueError, AttributeError, StopIteration, RecursionError):
            raise DataError(f"{_where(self.root, sample)}: its {sample.ending} says no class") from None
        if not text.strip():
            raise DataError(f"{_where(self.root, sample)}: its {sample.ending} is empty")
        return text.strip()

    def _class(self, sample: Sample) -> int:
        text, names = self._text(sample), self.classes
        if text in names:
            return names.index(text)
        if text.isdecimal() and len(text) < 9 and int(text) < len(names) and (self.root / NAMES).is_file():
            return int(text)
        raise DataError(f"{_where(self.root, sample)}: {text!r} is none of the {len(names)} classes")


def holds(root: str | os.PathLike[str]) -> bool:
    """Whether a folder is of this form."""
    return bool(_shards(Path(root)))


def open_split(root: str | os.PathLike[str], split: str, request: InputRequest | None) -> Shards:
    """The folder as a data set: see ``Shards``."""
    return Shards(root, split, request or InputRequest(None, 224, 224))


def summary(root: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder holds, without decoding an image: name, kind, classes, sizes by split, description."""
    request = InputRequest(None, 1, 1)
    whole = Shards(root, "all", request)
    description = f"{len(whole._whole)} tars in webdataset's form, {whole.division}"
    return summary_of(whole, lambda split: Shards(root, split, request), description)


def _shards(root: Path) -> list[str]:
    return [path.name for path in visible(root) if path.suffix == SUFFIX and path.is_file()]


def _where(root: Path, sample: Sample) -> str:
    return printable(f"{root / sample.shard}: {sample.key}")


def _samples(root: Path, shard: str) -> list[Sample]:
    """Of one tar, samples in the order in which their pictures lie in it."""
    images: dict[str, Place] = {}
    labels: dict[str, tuple[Place, str]] = {}
    path = root / shard
    try:
        with _Bounded(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for number, member in enumerate(tar):
                tar.members = []  # type: ignore[attr-defined]  # which would else keep every one
                if number >= MOST:
                    raise DataError(f"has more than the {MOST:,} members that are read")
                folder, _, name = member.name.rpartition("/")
                stem, dot, ending = name.partition(".")
                key, ending = f"{folder}/{stem}" if folder else stem, (dot + ending).lower()
                if not member.isreg() or not stem:
                    continue
                if ending in IMAGE_SUFFIXES:
                    images[key] = _place(member, LARGEST)
                elif ending in LABELS and (key not in labels or LABELS.index(ending) < LABELS.index(labels[key][1])):
                    labels[key] = _place(member, LARGEST_LABEL), ending
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as a tar ({first_line(error)})") from error
    for key in images:
        if key not in labels:
            raise DataError(printable(f"{path}: {key} has no label, in {' or '.join(LABELS)}"))
    return [Sample(shard, key, place, *labels[key]) for key, place in images.items()]


def _place(member: tarfile.TarInfo, most: int) -> Place:
    if member.size > most:
        raise DataError(f"{printable(member.name)} has {member.size:,} bytes, and {most:,} are read")
    return Place(member.offset_data, member.size)
