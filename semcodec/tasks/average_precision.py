"""How good boxes are: COCO's average precision, its interval, and two detectors compared over the same images.

pycocotools matches what was found with what is there, once, and gives the average precision. What resampling needs of
that is kept as ``Matches``, from which numpy computes the same figure for any choice of images.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from semcodec.errors import DataError, SemcodecError, first_line
from semcodec.tasks import statistics
from semcodec.tasks.statistics import packed, unpacked

if TYPE_CHECKING:
    from semcodec.boxes import Boxes

    Int64 = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

IOUS = 10
"""Overlaps from which on a box counts as found: 0.5, 0.55, ... 0.95."""
MOST = 100
"""Boxes of one class in one image that count, the best: COCO's number."""
RECALLS = np.linspace(0, 1, 101)
_VALUES = 1 << 22  # held at a time
_Column = list[Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]]
_Text = tuple[Annotated[int, msgspec.Meta(ge=0, le=1 << 24)], tuple[_Column, _Column], tuple[_Column, _Column, _Column]]
"""Images, and the columns of ``Matches.objects`` and ``Matches.found``."""


@dataclass(frozen=True)
class Matches:
    """Which of the boxes that were found match an object, image by image.

    images: how many there are. objects: int64 (k, 2), image and class of everything that is there. found: int64
    (n, 3), class, image and a bit for each overlap at which it matches, the lowest bit being 0.5; by class, best
    first. What comes after the last match of its class is left out, since it changes no average precision.
    """

    images: int
    objects: Int64
    found: Int64

    def average_precision(self, weights: Floats | None = None, overlap: int = 0) -> Floats:
        """Mean over the classes that are there, (B,) for images that are counted ``weights`` (B, images) times.

        overlap: which of the ``IOUS``. Without weights: of every image once, (1,). NaN where there is no object.
        """
        weights = np.ones((1, self.images)) if weights is None else weights
        total, classes = np.zeros(len(weights)), np.zeros(len(weights))
        for label in np.unique(self.objects[:, 1]):
            there = weights[:, self.objects[self.objects[:, 1] == label, 0]].sum(1)
            rows = self.found[self.found[:, 0] == label]
            total += np.where(there > 0, self._of_class(weights, there, rows[:, 1], rows[:, 2] >> overlap & 1 == 1), 0)
            classes += there > 0
        with np.errstate(invalid="ignore"):
            return np.asarray(total / classes)

    @staticmethod
    def _of_class(weights: Floats, there: Floats, images: Int64, right: npt.NDArray[np.bool_]) -> Floats:
        """Precision at 101 recalls, each the best that is reached there or beyond, and the mean of these."""
        if not right.any():
            return np.zeros(len(weights))
        step = max(1, _VALUES // len(images))
        parts = []
        for start in range(0, len(weights), step):
            counts = weights[start : start + step, images]
            found = np.cumsum(counts, 1)[:, right]
            matched = np.cumsum(counts[:, right], 1)
            precision = np.divide(matched, found, out=np.zeros_like(matched), where=found > 0)
            best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
            recall = matched / np.maximum(there[start : start + step, None], 1)
            reached = np.searchsorted(RECALLS, recall, side="right")
            parts.append((best * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS))
        return np.concatenate(parts)

    def text(self) -> str:
        """What a record holds: printable, a few bytes for each box."""
        return packed([self.images, self.objects.T.tolist(), self.found.T.tolist()])

    @classmethod
    def read(cls, text: str) -> Matches:
        """The inverse of ``text``. Raises DataError."""
        try:
            images, objects, found = unpacked(text, _Text)
            tables = [np.array(columns, np.int64).T for columns in (objects, found)]  # ValueError where lengths differ
            if any(rows[:, column].max(initial=0) >= images for rows, column in zip(tables, (0, 1), strict=True)):
                raise ValueError("an image is named that is not there")
            return cls(images, *tables)
        except ValueError as error:
            raise DataError(
                f"these matches of boxes cannot be read ({first_line(error)}); measure the record anew"
            ) from None


@dataclass(frozen=True)
class Precision:
    """Mean average precision at an overlap of 0.5, and over all ``IOUS``; fractions."""

    map50: float
    map50_95: float
    matches: Matches


def check() -> None:
    """Raises SemcodecError without pycocotools."""
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError:
        raise SemcodecError("average precision needs pycocotools: pip install pycocotools") from None


def score(found: Sequence[Boxes], there: Sequence[Boxes], classes: Sequence[str]) -> Precision:
    """COCO's average precision of the boxes found in each image, given the objects that are there.

    classes: names, which the boxes' classes index. A class of which there is no object counts for nothing.
    Raises DataError where there is no object at all, SemcodecError without pycocotools.
    """
    check()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects = np.array([(image, c) for image, boxes in enumerate(there) for c in boxes.classes.tolist()], np.int64)
    if not objects.size:
        raise DataError(f"there is no object in these {len(there):,} images, so there is no average precision")
    with redirect_stdout(io.StringIO()):  # it prints what it does
        truth, answer = COCO(), COCO()
        for dataset, boxes in ((truth, there), (answer, found)):
            dataset.dataset = {
                "images": [{"id": image} for image in range(len(there))],
                "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
                "annotations": list(_annotations(boxes)),
            }
            dataset.createIndex()
        judge = COCOeval(truth, answer, "bbox")
        judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [MOST]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][..., 0, 0]  # overlaps, recalls, classes; -1 for a class that is not there
    known = precision[:, :, np.unique(objects[:, 1])]
    return Precision(float(known[0].mean()), float(known.mean()), Matches(len(there), objects, _found(judge.evalImgs)))


def _annotations(boxes: Sequence[Boxes]) -> Iterator[dict[str, Any]]:
    number = 1  # pycocotools takes 0 for "matches nothing"
    for image, inside in enumerate(boxes):
        scores = [0.0] * len(inside) if inside.scores is None else inside.scores.tolist()
        for (left, top, right, bottom), label, probability in zip(
            inside.xyxy.tolist(), inside.classes.tolist(), scores, strict=True
        ):
            width, height = max(0.0, right - left), max(0.0, bottom - top)
            yield {
                "id": number,
                "image_id": image,
                "category_id": label,
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
                "score": probability,
            }
            number += 1


def _found(judged: Sequence[dict[str, Any] | None]) -> Int64:
    """``Matches.found`` of pycocotools' verdicts, one for each class and image, in order."""
    by_class: dict[int, list[dict[str, Any]]] = {}
    for one in judged:
        if one is not None and one["dtScores"]:
            by_class.setdefault(one["category_id"], []).append(one)
    rows = [np.zeros((0, 3), np.int64)]
    for label, verdicts in sorted(by_class.items()):
        scores = np.concatenate([one["dtScores"] for one in verdicts])
        images = np.concatenate([np.full(len(one["dtScores"]), one["image_id"]) for one in verdicts])
        matched = np.concatenate([one["dtMatches"] for one in verdicts], axis=1) > 0
        bits = (matched.astype(np.int64) << np.arange(IOUS)[:, None]).sum(0)
        order = np.argsort(-scores, kind="mergesort")  # pycocotools' own, so that ties fall alike
        last = np.flatnonzero(bits[order])[-1:] + 1
        order = order[: int(last[0]) if last.size else 0]
        rows.append(np.stack([np.full(len(order), label), images[order], bits[order]], 1).astype(np.int64))
    return np.concatenate(rows)


def interval(matches: Matches) -> tuple[float, float]:
    """95 % interval of the mean average precision at 0.5, from a bootstrap over images."""
    return statistics.interval(matches.images, matches.average_precision)


def paired(first: Matches, second: Matches) -> dict[str, float]:
    """Compare the mean average precisions at 0.5 of two detectors over the same images: ``statistics.paired_scores``.

    Raises ValueError for other images.
    """
    if first.images != second.images or not np.array_equal(first.objects, second.objects):
        raise ValueError("paired results need the same images and objects")
    return statistics.paired_scores(first.images, first.average_precision, second.average_precision)
