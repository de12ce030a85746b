"""What every data set gives, whatever it is read from."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from semcodec.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from semcodec.specs import FeatureSpec

    UInt8 = npt.NDArray[np.uint8]
    Int64 = npt.NDArray[np.int64]

SPLITS = ("train", "test")
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")


@dataclass(frozen=True)
class Request:
    """The pixels that a model wants: ``frames`` of ``height`` x ``width``; ``frames`` is None for still images.

    crop, interpolation: how they are made of a picture or film. The shorter side is resized to floor(side / crop) by
    "bilinear", "bicubic", "lanczos" or "nearest" interpolation, then the centre is cropped. What is made on the fly
    comes in the right size, whatever these say. Raises UsageError for a crop out of (0, 1] or another interpolation.
    """

    frames: int | None
    height: int
    width: int
    crop: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise UsageError(f"crop is a share above 0 and up to 1, not {self.crop}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation is one of {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}")

    @classmethod
    def of(cls, features: FeatureSpec, crop: float = 1.0, interpolation: str = "bilinear") -> Request:
        """What a model whose input is ``features`` ("frames" or "image") wants."""
        clip = "frames" in features
        *frames, _, height, width = features["frames" if clip else "image"].shape
        assert height is not None and width is not None
        return cls(frames[0] if clip else None, height, width, crop, interpolation)

    @property
    def kind(self) -> Literal["video", "image"]:
        return "image" if self.frames is None else "video"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's pixels: ([frames,] height, width, 3)."""
        return (*(() if self.frames is None else (self.frames,)), self.height, self.width, 3)

    def __str__(self) -> str:
        return "x".join(str(n) for n in (self.frames, self.height, self.width) if n is not None)


class EmptySplitError(DataError):
    """A data set with nothing in the split that was asked for."""


class Dataset(ABC):
    """Labelled samples by index, already of the size that was requested.

    name: what ``open_dataset`` was given.
    kind: "video" or "image".
    classes: class names; labels index them.
    varies: whether a sample stays of its class mirrored and cropped a little, so that training may do both.
    """

    name: str
    kind: Literal["video", "image"]
    classes: list[str]
    varies: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Int64]:
        """uint8 pixels (B, T, H, W, 3) of clips or (B, H, W, 3) of images, RGB, and int64 labels (B,).

        Raises DataError for a sample that cannot be read and IndexError for one that is not there.
        """

    @abstractmethod
    def ids(self, indices: Sequence[int]) -> list[str]:
        """Names of the samples, the same in every run: what tables and messages show."""


class Digest:
    """Names what was evaluated: a hash over pixels and labels, taken batch by batch, whatever the batch size.

    Samples must come in the same order; pixels are (B, ...) of any dtype, labels (B,).
    """

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def update(self, pixels: npt.NDArray[np.generic], labels: npt.NDArray[np.integer]) -> None:
        for sample, label in zip(pixels, labels, strict=True):
            self._state.update(f"{sample.dtype.str}{sample.shape}{int(label)}".encode())
            self._state.update(sample.tobytes())

    def hexdigest(self) -> str:
        """16 hexadecimal digits."""
        return self._state.hexdigest()[:16]
