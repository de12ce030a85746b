"""What every data set gives, whatever it is read from."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from semcodec.errors import DataError, UsageError
from semcodec.specs import InputRequest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from semcodec.boxes import Boxes

    UInt8 = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64] | npt.NDArray[np.float32] | list[Boxes] | list[UInt8]
    Int64 = npt.NDArray[np.int64]

SPLITS = ("train", "test")


class EmptySplitError(DataError):
    """A data set with nothing in the split that was asked for."""


def check_split(split: str) -> None:
    """Raises UsageError for a word that is no split of a folder."""
    if split not in (*SPLITS, "all"):
        raise UsageError(f"split is train, test or all, not {split!r}")


def check_images(name: object, request: InputRequest) -> None:
    """Raises DataError for a model of clips, where the data set ``name`` holds images."""
    if request.kind != "image":
        raise DataError(f"{name}: holds images where the model takes videos; choose another data set or backbone")


class Dataset(ABC):
    """Labelled samples by index, already of the size that was requested.

    name: what ``open_dataset`` was given.
    kind: "video" or "image".
    split: the part that it is of, or None where the set is not in parts.
    classes: class names; labels index them.
    counted: of these, the ones whose boxes or masks are there to be found, where these are not all.
    division: how it was parted into splits, as in "by the column split"; empty where the set itself comes in parts.
    varies: whether a sample stays of its class mirrored and cropped a little, so that training may do both.
    natural: whether it is of photographs or footage, which may be varied so wherever their labels do not count.
    """

    name: str
    kind: Literal["video", "image"]
    classes: list[str]
    split: str | None = None
    division: str = ""
    counted: Sequence[int] | None = None
    varies: bool = False
    natural: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """What models can do with it."""
        return ("video",) if self.kind == "video" else ("classification",)

    @abstractmethod
    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        """uint8 pixels (B, T, H, W, 3) of clips or (B, H, W, 3) of images, RGB, and int64 labels (B,).

        Where boxes were requested, labels are one ``Boxes`` for each sample instead, in the pixels that are given;
        masks are uint8 (H, W) of each source (``semcodec.class_masks``), and another task's are an array or a list of
        what that task takes, one for each sample.
        Raises DataError for a sample that cannot be read and IndexError for one that is not there.
        """

    def sizes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        """Width and height of each source, before it was fitted to the request; of data with more than classes."""
        raise NotImplementedError

    def content(self, count: int) -> str:
        """16 hex digits over what the first ``count`` samples and their labels hold, whatever path they have.

        Known before anything is measured, and cheap where files tell it: here every sample is read.
        """
        return self.digest(count)

    def digest(self, count: int) -> str:
        """16 hex digits over pixels and labels of the first ``count`` samples as they are given: see ``Digest``."""
        digest = Digest()
        for index in range(count):
            digest.update(*self.batch([index]))
        return digest.hexdigest()

    @abstractmethod
    def ids(self, indices: Sequence[int]) -> list[str]:
        """Names of the samples, the same in every run: what tables and messages show."""


class View(Dataset):
    """Another data set, ``inner``, seen otherwise: whatever a subclass does not say is the other's."""

    def __init__(self, inner: Dataset) -> None:
        self.inner = inner
        self.name, self.kind, self.classes, self.split = inner.name, inner.kind, inner.classes, inner.split
        self.division, self.counted = inner.division, inner.counted
        self.varies, self.natural = inner.varies, inner.natural

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.inner.tasks

    def __len__(self) -> int:
        return len(self.inner)

    def sizes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        return self.inner.sizes(indices)

    def content(self, count: int) -> str:
        return self.inner.content(count)

    def ids(self, indices: Sequence[int]) -> list[str]:
        return self.inner.ids(indices)


def summary_of(whole: Dataset, open_split: Callable[[str], Dataset], description: str) -> dict[str, Any]:
    """What a folder holds: name, kind and classes of all of it, sizes by split, 0 where one is empty, description."""
    sizes = {}
    for split in SPLITS:
        try:
            sizes[split] = len(open_split(split))
        except EmptySplitError:
            sizes[split] = 0
    return {
        "name": whole.name,
        "kind": whole.kind,
        "classes": whole.classes,
        "sizes": sizes,
        "description": description,
    }


class Digest:
    """Names what was evaluated: a hash over pixels and labels, taken batch by batch, whatever the batch size.

    Samples must come in the same order; pixels are (B, ...) of any dtype, labels (B,) integers, ``Boxes`` or arrays.
    """

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def update(self, pixels: npt.NDArray[np.generic], labels: Labels) -> None:
        for sample, label in zip(pixels, labels, strict=True):
            self._state.update(f"{sample.dtype.str}{sample.shape}{_said(label)}".encode())
            self._state.update(sample.tobytes())

    def hexdigest(self) -> str:
        """16 hexadecimal digits."""
        return self._state.hexdigest()[:16]


def _said(label: Any) -> str:
    """A class's index, classes and corners of boxes, or an array's values, the same on every machine."""
    if hasattr(label, "xyxy"):
        return f"{label.classes.tolist()}{label.xyxy.tolist()}"
    if getattr(label, "ndim", 0) > 1:
        return f"{label.dtype.str}{label.shape}{hashlib.sha256(label.tobytes()).hexdigest()}"
    values = label.tolist() if hasattr(label, "tolist") else label
    return str(int(values)) if isinstance(values, bool) else str(values)
