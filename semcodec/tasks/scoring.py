"""Predictions against labels: what of a record is accuracy, for classes and for boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from semcodec.boxes import Boxes, Letterbox
from semcodec.data.base import Dataset
from semcodec.errors import DataError
from semcodec.tasks import average_precision
from semcodec.tasks.statistics import wilson

if TYPE_CHECKING:
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.tasks.prediction import Prediction, Size


class Score(Protocol):
    """Takes predictions batch by batch."""

    @property
    def source_bytes(self) -> float:
        """Mean size of the sources as 8-bit pixels."""

    def add(self, predictions: Sequence[Prediction], labels: Any, sizes: Sequence[Size] | None) -> None:
        """sizes: width and height of each source, where labels are boxes."""

    def accuracy(self) -> dict[str, Any]:
        """Keys of a record, of all samples together."""

    def by_sample(self) -> dict[str, Any]:
        """Those that paired tests need."""

    def rate(self, size: float) -> dict[str, float]:
        """Those that a mean size of packets gives, beside it."""


def score_of(pipeline: Pipeline, dataset: Dataset) -> Score:
    """Raises DataError where labels do not fit the model's classes, SemcodecError where a library is missing."""
    return DetectionScore(pipeline, dataset) if pipeline.request.boxes else ClassificationScore(pipeline, dataset)


class ClassificationScore:
    """Counts what was recognised."""

    def __init__(self, pipeline: Pipeline, dataset: Dataset) -> None:
        self.to_model = _matched(pipeline, dataset, range(len(dataset.classes)))
        self.source_bytes = pipeline.raw_uint8_bytes
        self.right: list[bool] = []

    def add(self, predictions: Sequence[Prediction], labels: Any, sizes: Sequence[Size] | None) -> None:
        self.right += [p.index == self.to_model[int(label)] for p, label in zip(predictions, labels, strict=True)]

    def accuracy(self) -> dict[str, Any]:
        right, total = sum(self.right), len(self.right)
        return {"top1": right / total, "top1_interval": list(wilson(right, total))}

    def by_sample(self) -> dict[str, Any]:
        return {"correct": "".join("01"[right] for right in self.right)}

    def rate(self, size: float) -> dict[str, float]:
        return {}


class DetectionScore:
    """Collects boxes, in pixels of the source. Those of classes that the data does not count are passed over."""

    def __init__(self, pipeline: Pipeline, dataset: Dataset) -> None:
        average_precision.check()
        self.request, self.classes, self.chosen = pipeline.request, dataset.classes, dataset.counted
        counted = list(range(len(dataset.classes)) if dataset.counted is None else dataset.counted)
        self.to_data = torch.full((len(pipeline.classes),), -1)
        self.to_data[_matched(pipeline, dataset, counted)] = torch.tensor(counted)
        self.found: list[Boxes] = []
        self.there: list[Boxes] = []
        self.pixels = 0
        self._judged: average_precision.Precision | None = None

    @property
    def source_bytes(self) -> float:
        return 3 * self.pixels / len(self.there)

    def add(self, predictions: Sequence[Prediction], labels: Sequence[Boxes], sizes: Sequence[Size] | None) -> None:
        assert sizes is not None
        for prediction, boxes, (width, height) in zip(predictions, labels, sizes, strict=True):
            place = Letterbox.of(width, height, self.request.width, self.request.height)
            self.there.append(place.to_source(boxes))
            found = prediction.boxes or Boxes.none(scored=True)
            found = replace(found, classes=self.to_data[found.classes])
            self.found.append(found[found.classes >= 0])
            self.pixels += width * height

    def accuracy(self) -> dict[str, Any]:
        judged = self._judge()
        found: dict[str, Any] = {
            "map50": judged.map50,
            "map50_95": judged.map50_95,
            "map50_interval": list(average_precision.interval(judged.matches)),
            "bootstrap": {"resamples": average_precision.RESAMPLES, "seed": average_precision.SEED},
            "objects": len(judged.matches.objects),
        }
        return found if self.chosen is None else {**found, "classes": [self.classes[i] for i in self.chosen]}

    def by_sample(self) -> dict[str, Any]:
        return {"matches": self._judge().matches.text()}

    def rate(self, size: float) -> dict[str, float]:
        return {"bpp": 8 * size * len(self.there) / self.pixels}

    def _judge(self) -> average_precision.Precision:
        if self._judged is None:
            self._judged = average_precision.score(self.found, self.there, self.classes)
        return self._judged


def _matched(pipeline: Pipeline, dataset: Dataset, labels: Sequence[int]) -> list[int]:
    """For each of the data's labels, the model's class of that name."""
    if dataset.classes == list(pipeline.classes):  # names may be there twice: ImageNet has two cranes
        return list(labels)
    places = {name: i for i, name in enumerate(pipeline.classes)}
    names = [dataset.classes[label] for label in labels]
    missing = [name for name in names if name not in places]
    if missing:
        raise DataError(
            f"the model does not know class {missing[0]!r} of {dataset.name}; "
            f"its classes are {', '.join(list(pipeline.classes)[:8])}{' ...' if len(places) > 8 else ''}"
        )
    return [places[name] for name in names]
