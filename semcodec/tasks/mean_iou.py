"""How well masks are found: intersection over union by class, its mean, an interval, and two models compared.

Of each image are kept the pixels of each class that are there, found, and both; numpy gives the same figure of any
choice of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from semcodec.class_masks import IGNORED
from semcodec.errors import DataError, first_line
from semcodec.tasks import statistics
from semcodec.tasks.statistics import packed, unpacked

if TYPE_CHECKING:
    UInt8 = npt.NDArray[np.uint8]
    Int64 = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

_MOST_IMAGES, _MOST_CLASSES = 1 << 24, 255
_MOST_CELLS = 1 << 26
_Column = list[Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]]
_Text = tuple[
    Annotated[int, msgspec.Meta(ge=1, le=_MOST_IMAGES)],
    Annotated[int, msgspec.Meta(ge=1, le=_MOST_CLASSES)],
    tuple[_Column, _Column, _Column, _Column, _Column],
]


@dataclass(frozen=True)
class Counts:
    """Pixels by image and class. images, classes: how many there are. rows: int64 (n, 5), image, class, and the pixels

    of that class that are there, that are found, and both; only of what is there or found in an image.
    """

    images: int
    classes: int
    rows: Int64

    @classmethod
    def of(cls, images: Sequence[Int64], classes: int) -> Counts:
        """Of tables (classes, 3) of the images."""
        parts = [np.zeros((0, 5), np.int64)]
        for number, table in enumerate(images):
            seen = np.flatnonzero(table.any(1))
            parts.append(np.column_stack((np.full(len(seen), number), seen, table[seen])).astype(np.int64))
        return cls(len(images), classes, np.concatenate(parts))

    @cached_property
    def _sums(self) -> tuple[Floats, Floats]:
        """Intersection and union, (images, classes)."""
        both, union = np.zeros((2, self.images, self.classes))
        image, label, there, found, inside = self.rows.T
        both[image, label], union[image, label] = inside, there + found - inside
        return both, union

    def by_class(self, weights: Floats | None = None) -> Floats:
        """Intersection over union of each class, (B, classes), for images counted ``weights`` (B, images) times.

        Without weights: of every image once, (1, classes). NaN where a class is neither there nor found.
        """
        both, union = self._sums
        weights = np.ones((1, self.images)) if weights is None else weights
        with np.errstate(invalid="ignore"):
            return np.asarray((weights @ both) / (weights @ union))

    def mean(self, weights: Floats | None = None) -> Floats:
        """The mean over the classes that are there or found, (B,); NaN where there is none."""
        found = self.by_class(weights)
        known = ~np.isnan(found)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(known, found, 0).sum(1) / known.sum(1))

    @property
    def pixels(self) -> int:
        """Whose class is known and counts."""
        return int(self.rows[:, 2].sum())

    @property
    def accuracy(self) -> float:
        """The share of these that are right."""
        return float(self.rows[:, 4].sum() / max(1, self.pixels))

    def text(self) -> str:
        """What a record holds: printable, a few bytes for each class of an image."""
        return packed([self.images, self.classes, self.rows.T.tolist()])

    @classmethod
    def read(cls, text: str) -> Counts:
        """The inverse of ``text``. Raises DataError."""
        try:
            images, classes, columns = unpacked(text, _Text)
            rows = np.array(columns, np.int64).T.reshape(-1, 5)  # ValueError where lengths differ
            fits = (rows[:, :2] < (images, classes)).all() and (rows[:, 4] <= rows[:, 2:4].min(1)).all()
            if not fits or images * classes > _MOST_CELLS:
                raise ValueError("an image or a class is counted that is not there")
            return cls(images, classes, rows)
        except ValueError as error:
            raise DataError(
                f"these counts of pixels cannot be read ({first_line(error)}); measure the record anew"
            ) from None


def count(found: npt.NDArray[Any], there: UInt8, classes: int) -> Int64:
    """Of one image int64 (classes, 3): pixels of each class that are there, that are found, and both.

    found: classes by number, of the shape of ``there``, where what is no class is negative. ``IGNORED`` counts nowhere.
    """
    known = there != IGNORED
    there, found = there[known], found[known]
    inside = there[there == found]
    named = found[found >= 0]
    return np.stack([np.bincount(one, minlength=classes)[:classes] for one in (there, named, inside)], 1)


def interval(counts: Counts) -> tuple[float, float]:
    """95 % interval of the mean, from a bootstrap over images."""
    return statistics.interval(counts.images, counts.mean)


def paired(first: Counts, second: Counts) -> dict[str, float]:
    """Compare the means of two models over the same images: ``statistics.paired_scores``.

    Raises ValueError for other images.
    """
    same = (first.images, first.classes, first.pixels) == (second.images, second.classes, second.pixels)
    if not same:
        raise ValueError("paired results need the same images and masks")
    return statistics.paired_scores(first.images, first.mean, second.mean)
