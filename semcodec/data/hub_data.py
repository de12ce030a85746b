"""Data sets of the Hugging Face hub by name, ``hf:OWNER/NAME[@REVISION]``, or a local folder in that form, ``hf:PATH``.

``datasets`` fetches and caches them; pictures are decoded here, from their bytes. ``hub_columns`` has what is read
beside these.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec._network import HUB, unreachable
from semcodec.data.base import Dataset, EmptySplitError, check_images, check_split, summary_of
from semcodec.data.contents import digest_of
from semcodec.data.files import printable
from semcodec.data.hub_columns import COLUMNS, image_bytes, image_column
from semcodec.data.images import read_bytes, size_in
from semcodec.errors import DataError, SemcodecError, first_line
from semcodec.specs import CLASS, InputRequest

if TYPE_CHECKING:
    from semcodec.data.base import Labels, UInt8

PREFIX = "hf:"
NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)?(@[\w.\-/]+)?", re.ASCII)
TEST = ("test", "validation", "valid", "val", "dev")
"""Names of the split that is the test's, the first that is there."""


class HubImages(Dataset):
    """Images of a table with their classes, boxes or masks, as is requested.

    Split "train" is the one of that name, "test" the first there is of ``TEST``; where there is but one split, all of
    it is for the test and for training; "all" is every one. Raises DataError for a table that lacks what is requested.
    """

    kind = "image"
    natural = True
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
        self._image = image_column(name, features)
        if request.labels not in COLUMNS:
            raise DataError(f"{name}: of the hub {', '.join(COLUMNS)} are read, and the model takes {request.labels}")
        self.labels = COLUMNS[request.labels](name, tables)
        self.classes, self.varies = self.labels.classes, request.labels == CLASS

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.labels.task,)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        pixels = np.empty((len(indices), *self.request.shape), np.uint8)
        labels: list[Any] = []
        for row, index in enumerate(indices):
            entry = self._row(index)
            pixels[row], size = read_bytes(self._bytes(entry, index), self._where(index), self.request)
            labels.append(self.labels.read(entry, size, self.request, self._where(index)))
        return pixels, np.array(labels, np.int64) if self.request.labels == CLASS else labels

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
            parts.append((hashlib.sha256(self._bytes(entry, index)).hexdigest(), self.labels.told(entry)))
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
        return image_bytes(entry, self._image, self._where(index))


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
    description = f"of the Hugging Face hub, {whole.division}; images with {whole.labels.words}"
    return summary_of(whole, lambda split: HubImages(name, split, request), description)


def _request(name: str, labels: str | None) -> InputRequest:
    """Where nobody asks for a size: with the labels that are asked for, or the first that there are."""
    if labels is None:
        features = next(iter(_tables(name, _environment()).values())).features
        labels = next((kind for kind, column in COLUMNS.items() if column.there(features)), CLASS)
    return InputRequest(None, 224, 224, fit="crop" if labels == CLASS else "letterbox", labels=labels)


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
