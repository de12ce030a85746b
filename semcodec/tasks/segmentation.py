"""A class for each pixel: masks in pixels of the source, and mean intersection over union."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semcodec import class_masks as masks
from semcodec.errors import CorruptStream, DataError, UsageError
from semcodec.panels import Panel
from semcodec.specs import InputRequest, TensorSpec
from semcodec.tasks import mean_iou, statistics
from semcodec.tasks.base import Metric, Record, Score, Stopwatch, Told, match_classes
from semcodec.tasks.in_picture import InPicture, cropped, pack_places, unpack_places
from semcodec.tasks.prediction import Answer, Prediction, Size
from semcodec.tasks.source import source_size

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.container.packets import Packet
    from semcodec.container.sinks import ChunkRow
    from semcodec.data.base import Dataset
    from semcodec.panels import UInt8
    from semcodec.tasks.base import Floats
    from semcodec.types import Labels

NAMES = "classes.yaml"
"""What says which number of masks is which class."""
SHOWN = 0.005
"""Least share of a picture of a class that is told."""
MOST_PIXELS = 1 << 28
"""Of a mask that is written: a packet may say any size."""
_ANSWER = "an answer's mask"


class Segmentation(InPicture):
    """Masks, see ``InPicture``."""

    metric = Metric("miou", "mean IoU", "mIoU %")
    listed = "classes"

    def check_labels(self, name: str, labels: Labels) -> None:
        if not any((np.asarray(mask) != masks.IGNORED).any() for mask in labels):
            raise UsageError(f"{name} has no pixel of a known class in its first {len(labels)} samples to learn from")

    def example_labels(self, count: int) -> Labels:
        return [
            np.array([[row % 2, 1], [0, masks.IGNORED]], np.uint8).repeat(32, 0).repeat(32, 1) for row in range(count)
        ]

    def label(self, label: Any, classes: Sequence[str], size: Size | None, request: InputRequest) -> Any:
        return label

    def output(self, classes: int) -> TensorSpec:
        """Logits of each class at each pixel of the input, or at places as wide and as high as each other."""
        return TensorSpec((classes, None, None))

    def port(self, classes: int | None) -> dict[str, str]:
        return {"mask": "[height, width, class]"}

    def answers(self, output: Tensor, clock: Stopwatch) -> list[Answer]:
        """One mask a sample, uint8 (h, w)."""
        import torch

        with clock("argmax"):
            return list(output.argmax(1).to(torch.uint8).numpy())

    def predict(
        self,
        packet: Packet,
        answer: Answer,
        classes: Sequence[str],
        request: InputRequest,
        rows: tuple[ChunkRow, ...],
    ) -> Prediction:
        size = source_size(packet)
        layers = packet.layers_present, packet.layers_total
        return _prediction(masks.of_picture(answer, size), classes, size, layers=layers, rows=rows)

    def numbers(self, prediction: Prediction) -> Any:
        return prediction.logits if prediction.mask is None else prediction.mask

    def to_bytes(self, prediction: Prediction) -> bytes | None:
        if prediction.mask is None or prediction.source is None:
            return None
        return pack_places(prediction.mask, prediction.source)

    def from_bytes(self, prediction: Prediction, data: bytes, classes: Sequence[str]) -> Prediction:
        mask, source = unpack_places(data, _ANSWER)
        if mask.max() >= len(classes):
            raise CorruptStream(f"{_ANSWER} is not of {mask.shape[1]}x{mask.shape[0]} places of {len(classes)} classes")
        return replace(prediction, mask=mask, source=source)

    def score(self, dataset: Dataset, classes: Sequence[str], request: InputRequest, input_bytes: int) -> Score:
        return SegmentationScore(dataset, classes)

    def compare(self, first: Record, second: Record) -> dict[str, float]:
        """Differences are of ``miou``, interval and p from a bootstrap over images (``mean_iou.paired``)."""
        return mean_iou.paired(*(mean_iou.Counts.read(record["counts"]) for record in (first, second)))

    def scores(self, record: Record, weights: Floats) -> Floats | None:
        if not isinstance(record.get("counts"), str):
            return None
        counts = mean_iou.Counts.read(record["counts"])
        return counts.mean(weights) if counts.images == weights.shape[1] else None

    def columns(self, record: Record) -> list[tuple[str, Any]]:
        return [("pixels %", 100 * record["pixel_accuracy"]), ("bpp", f"{record['bpp']:.4f}")]

    def notes(self, record: Record) -> list[tuple[str, str]]:
        ranked = sorted(record["iou"].items(), key=lambda row: -row[1])
        told = ", ".join(f"{name} {100 * value:.1f}" for name, value in ranked[:12])
        more = f", ... and {len(ranked) - 12:,} more" if len(ranked) > 12 else ""
        return [("IoU %", f"{told}{more}"), ("pixels", f"{record['pixels']:,} whose class is known")]

    def describe(
        self, prediction: Prediction, classes: Sequence[str], label: Any, names: Sequence[str] | None
    ) -> dict[str, Any]:
        if prediction.mask is None:
            return super().describe(prediction, classes, None, names)
        told: dict[str, Any] = {
            "prediction": {"classes": _shares(prediction.mask, classes), "where": prediction.where},
            "label": None if label is None or not names else _shares(label, names),
            "source": list(prediction.source or ()),
            "pixel_accuracy": None,
        }
        if label is not None and names and set(names) <= set(classes):
            places = _to_data(classes, names)
            found = mean_iou.count(places[masks.resized(prediction.mask, *label.shape[::-1])], label, len(names))
            told["pixel_accuracy"] = float(found[:, 2].sum() / max(1, found[:, 0].sum()))
        return told

    def describe_unanswered(self, label: Any, names: Sequence[str] | None, size: Size) -> dict[str, Any]:
        there = None if label is None or not names else _shares(label, names)
        return {"prediction": None, "label": there, "source": list(size), "pixel_accuracy": None}

    def table(self, told: Told) -> tuple[list[str], list[tuple[Any, ...]]] | None:
        if "classes" not in told["prediction"]:
            return super().table(told)
        there = {one["name"]: one["share"] for one in told["label"] or ()}
        head = ["found", "pixels %", *(["there %"] if told["label"] is not None else [])]
        rows = []
        for one in told["prediction"]["classes"]:
            known = [100 * there.get(one["name"], 0.0)] if told["label"] is not None else []
            rows.append((one["name"], 100 * one["share"], *known))
        return head, rows

    def summed(self, told: Told) -> str:
        """The classes with their shares of the picture and, where that is known, how much is right."""
        found = ", ".join(f"{one['name']} {100 * one['share']:.1f} %" for one in told["prediction"]["classes"])
        width, height = told["source"]
        right = told.get("pixel_accuracy")
        verdict = "" if right is None else f"; {100 * right:.1f} % of known pixels are right"
        return f"{found}, of {width} x {height} pixels{verdict}"

    def panel(self, prediction: Prediction, pixels: UInt8, sent: str) -> Panel:
        assert prediction.mask is not None and prediction.source is not None
        image = cropped(pixels, prediction.source)
        mask = masks.resized(prediction.mask, image.shape[1], image.shape[0])
        return Panel(f"{sent}{len(np.unique(mask))} classes", masks.painted(mask, image))


class SegmentationScore(Score):
    """Counts pixels of the source. Classes that the data do not count are passed over."""

    def __init__(self, dataset: Dataset, classes: Sequence[str]) -> None:
        counted = list(range(len(dataset.classes)) if dataset.counted is None else dataset.counted)
        match_classes(dataset, classes, counted)  # raises where the model lacks one
        self.names, self.chosen = [dataset.classes[label] for label in counted], dataset.counted is not None
        self.places = _to_data(classes, self.names)
        self.there = np.full(256, _OTHER, np.uint8)
        self.there[counted] = range(len(counted))
        self.there[masks.IGNORED] = masks.IGNORED
        self.images: list[npt.NDArray[np.int64]] = []
        self.pixels = 0

    @property
    def source_bytes(self) -> float:
        return 3 * self.pixels / len(self.images)

    def add(self, predictions: Sequence[Prediction], labels: Labels, sizes: Sequence[Size] | None) -> None:
        for prediction, label in zip(predictions, labels, strict=True):
            there: UInt8 = self.there[np.asarray(label, np.uint8)]
            small = np.zeros((1, 1), np.uint8) if prediction.mask is None else prediction.mask
            found = self.places[masks.resized(small, there.shape[1], there.shape[0])]
            if prediction.mask is None:  # the device's own answer names no pixel
                found = np.full_like(found, -1)
            self.images.append(mean_iou.count(found, there, len(self.names)))
            self.pixels += there.size

    @property
    def counts(self) -> mean_iou.Counts:
        """Of all samples so far. Raises DataError where no pixel's class is known."""
        found = mean_iou.Counts.of(self.images, len(self.names))
        if not found.pixels:
            raise DataError(f"no pixel of these {len(self.images):,} images is of a class that counts")
        return found

    def accuracy(self) -> dict[str, Any]:
        counts = self.counts
        by_class = zip(self.names, counts.by_class()[0].tolist(), strict=True)
        found: dict[str, Any] = {
            "miou": float(counts.mean()[0]),
            "miou_interval": list(mean_iou.interval(counts)),
            "pixel_accuracy": counts.accuracy,
            "iou": {name: value for name, value in by_class if value == value},
            "pixels": counts.pixels,
            "bootstrap": {"resamples": statistics.RESAMPLES, "seed": statistics.SEED},
        }
        return {**found, "classes": self.names} if self.chosen else found

    def by_sample(self) -> dict[str, Any]:
        return {"counts": self.counts.text()}

    def rate(self, size: float) -> dict[str, float]:
        return {"bpp": 8 * size * len(self.images) / self.pixels}


_OTHER = 254
"""Of a pixel of a class that does not count: it is known, and right as nothing."""


def mask_png(prediction: Prediction) -> bytes:
    """The mask in pixels of the source, as PNG of a palette whose numbers are the model's classes.

    Raises UsageError for a prediction that has none, CorruptStream where it is larger than what is written.
    """
    from PIL import Image

    if prediction.mask is None or prediction.source is None:
        raise UsageError("the model answers no masks; --mask-dir is for one that segments")
    width, height = prediction.source
    if width * height > MOST_PIXELS:
        raise CorruptStream(f"a packet says that its picture is of {width}x{height} pixels: its mask is not written")
    image = Image.fromarray(masks.resized(prediction.mask, width, height))
    image.putpalette(masks.palette())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def names_yaml(classes: Sequence[str]) -> str:
    """``classes.yaml`` beside such masks, as ``semcodec.data`` reads it."""
    import json

    rows = "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(classes))
    return f"classes:\n{rows}"


def _prediction(mask: UInt8, classes: Sequence[str], size: Size, **more: Any) -> Prediction:
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    index = int(counts.argmax())
    share = float(counts[index] / mask.size)
    return Prediction(index, classes[index], share, mask=mask, source=size, **more)


def _to_data(classes: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.int16]:
    """For each of the model's classes the place among ``names``, -1 where it is none of them."""
    places = {name: place for place, name in enumerate(names)}
    return np.array([places.get(name, -1) for name in classes], np.int16)


def _shares(mask: UInt8, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The classes of a mask with the shares of known pixels that they have, the largest first."""
    known = mask[mask != masks.IGNORED]
    counts = np.bincount(known.ravel(), minlength=len(classes))
    order = np.argsort(-counts, kind="stable")
    shares = [(classes[i], float(counts[i] / max(1, known.size))) for i in order.tolist()]
    return [{"name": name, "share": round(share, 4)} for name, share in shares if share >= SHOWN]
