"""The picture itself, from what was sent: peak signal-to-noise ratio (PSNR) against the model's input.

Of a picture with the squared error MSE, the mean over its pixels and three channels of 8 bits,

    PSNR = 10 log10(255^2 / MSE) dB,

and the score is the mean over pictures. What a letterbox puts around a picture counts for nothing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.errors import CorruptStream, DataError, UsageError
from semcodec.panels import Panel
from semcodec.specs import InputRequest, TensorSpec
from semcodec.tasks.base import Metric, Record, Score, Stopwatch, Told
from semcodec.tasks.in_picture import cropped, pack_places, unpack_places
from semcodec.tasks.prediction import Answer, Prediction, Size
from semcodec.tasks.source import OfSource, source_size
from semcodec.tasks.statistics import RESAMPLES, SEED, interval, packed, paired_scores, unpacked
from semcodec.tensors import as_array, eight_bits, from_eight_bits

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.container.packets import LocalRecord, Packet
    from semcodec.container.sinks import ChunkRow
    from semcodec.data.base import Dataset
    from semcodec.panels import UInt8
    from semcodec.tasks.base import Floats
    from semcodec.types import Labels

NONE = "picture"
"""What a prediction has in the place of a class's name."""
MOST = 100.0
"""dB of a picture that is the same to the bit, whose PSNR has no bound."""
_ANSWER = "an answer's picture"


class Reconstruction(OfSource):
    """The tail gives RGB pixels (B, 3, H, W) float32 in [0, 1], as many as the input has."""

    metric = Metric("psnr", "PSNR", "PSNR dB", "dB")

    def example_labels(self, count: int) -> Labels:
        return [np.full((32, 32, 3), 255 * (row % 2), np.uint8) for row in range(count)]

    def label(self, label: Any, classes: Sequence[str], size: Size | None, request: InputRequest) -> Any:
        return _inside(label, size or (request.width, request.height), request)

    def output(self, classes: int) -> TensorSpec:
        return TensorSpec((3, None, None))

    def port(self, classes: int | None) -> dict[str, str]:
        return {"picture": "[height, width, 3]"}

    def answers(self, output: Tensor, clock: Stopwatch) -> list[Answer]:
        """One picture a sample, uint8 (H, W, 3)."""
        return list(eight_bits(output))

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
        picture = _inside(answer, size, request)
        return Prediction(-1, NONE, 0.0, layers=layers, rows=rows, source=size, picture=picture)

    def predict_local(self, record: LocalRecord, classes: Sequence[str]) -> Prediction:
        raise CorruptStream(f"record {record.sequence} names a class where a picture is wanted")

    def numbers(self, prediction: Prediction) -> Any:
        return prediction.picture

    def to_bytes(self, prediction: Prediction) -> bytes | None:
        if prediction.picture is None or prediction.source is None:
            return None
        return pack_places(prediction.picture, prediction.source)

    def from_bytes(self, prediction: Prediction, data: bytes, classes: Sequence[str]) -> Prediction:
        picture, source = unpack_places(data, _ANSWER, (3,))
        return replace(prediction, picture=picture, source=source)

    def score(self, dataset: Dataset, classes: Sequence[str], request: InputRequest, input_bytes: int) -> Score:
        return ReconstructionScore(request)

    def compare(self, first: Record, second: Record) -> dict[str, float]:
        """Differences are of ``psnr``, in dB; interval and p from a bootstrap over pictures."""
        each = [_each(record) for record in (first, second)]
        means = [lambda weights, one=one: _mean(one, weights) for one in each]
        return paired_scores(len(each[0]), *means)

    def scores(self, record: Record, weights: Floats) -> Floats | None:
        if not isinstance(record.get("decibels"), str):
            return None
        each = _each(record)
        return _mean(each, weights) if len(each) == weights.shape[1] else None

    def columns(self, record: Record) -> list[tuple[str, Any]]:
        return [("bpp", f"{record['bpp']:.4f}")]

    def describe(
        self, prediction: Prediction, classes: Sequence[str], label: Any, names: Sequence[str] | None
    ) -> dict[str, Any]:
        assert prediction.picture is not None and prediction.source is not None
        height, width = prediction.picture.shape[:2]
        return {
            "prediction": {"picture": [width, height], "where": prediction.where},
            "label": None,
            "source": list(prediction.source),
            "psnr": None if label is None else decibels(prediction.picture, label),
        }

    def describe_unanswered(self, label: Any, names: Sequence[str] | None, size: Size) -> dict[str, Any]:
        return {"prediction": None, "label": None, "source": list(size), "psnr": None}

    def fields(self, told: Told) -> list[tuple[str, Any]]:
        return [("picture", _summed(told))]

    def cells(self, told: Told) -> list[tuple[str, Any]]:
        return [("picture", _summed(told))]

    def headline(self, told: Told) -> list[str]:
        return [f"picture of {_summed(told)}"]

    def panel(self, prediction: Prediction, pixels: UInt8, sent: str) -> Panel:
        assert prediction.picture is not None and prediction.source is not None
        there = pixels if pixels.shape == prediction.picture.shape else cropped(pixels, prediction.source)
        return Panel(f"{sent}picture, {decibels(prediction.picture, there):.1f} dB", prediction.picture)


class ReconstructionScore(Score):
    """Collects the PSNR of each picture. request: of the model's input, which labels are."""

    def __init__(self, request: InputRequest) -> None:
        self.request = request
        self.each: list[float] = []
        self.pixels = 0

    @property
    def source_bytes(self) -> float:
        return 3 * self.pixels / len(self.each)

    def add(self, predictions: Sequence[Prediction], labels: Labels, sizes: Sequence[Size] | None) -> None:
        assert sizes is not None
        for prediction, label, size in zip(predictions, labels, sizes, strict=True):
            assert prediction.picture is not None
            self.each.append(decibels(prediction.picture, _inside(as_array(label), size, self.request)))
            self.pixels += size[0] * size[1]

    def accuracy(self) -> dict[str, Any]:
        each = np.array(self.each)
        return {
            "psnr": float(each.mean()),
            "psnr_interval": list(interval(len(each), lambda weights: _mean(each, weights))),
            "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        }

    def by_sample(self) -> dict[str, Any]:
        return {"decibels": packed([round(one, 4) for one in self.each])}

    def rate(self, size: float) -> dict[str, float]:
        return {"bpp": 8 * size * len(self.each) / self.pixels}


def decibels(picture: UInt8, there: UInt8) -> float:
    """PSNR of a picture (H, W, 3) against what it should be, at most ``MOST``. Raises DataError for another shape."""
    if picture.shape != there.shape:
        sides = [f"{one.shape[1]}x{one.shape[0]}" for one in (picture, there)]
        raise DataError(f"a picture of {sides[0]} pixels was answered where {sides[1]} are due")
    error = np.square(picture.astype(np.float64) - there).mean()
    return min(MOST, float(10 * np.log10(255**2 / error))) if error else MOST


def targets(labels: Labels, like: Tensor) -> Tensor:
    """Pixels, each uint8 (h, w, 3), as pictures float32 (B, 3, h, w) in [0, 1] beside a tensor."""
    return from_eight_bits(np.stack([as_array(one) for one in labels])).to(like.device)


def squared_error(pictures: Tensor, wanted: Tensor) -> tuple[Tensor, dict[str, float]]:
    """What pictures (B, 3, H, W) in [0, 1] learn by; others than of that size are resized first.

    Figures have "psnr", in dB, of the mean error of the batch.
    """
    import torch.nn.functional as F

    if wanted.shape[2:] != pictures.shape[2:]:
        wanted = F.interpolate(wanted, size=pictures.shape[2:], mode="area")
    error = (pictures - wanted).square().mean()
    return error, {"psnr": -10 * error.detach().log10().item()}


def picture_png(prediction: Prediction) -> bytes:
    """The picture as PNG, of the size that it has in the model's input. Raises UsageError for an answer without."""
    from PIL import Image

    if prediction.picture is None:
        raise UsageError("the model answers no pictures; --picture-dir is for one that reconstructs them")
    file = io.BytesIO()
    Image.fromarray(prediction.picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def _inside(pixels: UInt8, size: Size, request: InputRequest) -> UInt8:
    """The model's input without what a letterbox put around the picture; whole where that was cropped."""
    return cropped(pixels, size) if request.fit == "letterbox" else pixels


def _each(record: Record) -> Floats:
    try:
        return np.array(unpacked(record["decibels"], list[float]))
    except ValueError as error:
        raise DataError(f"a record's decibels cannot be read: {error}; measure it anew") from error


def _mean(each: Floats, weights: Floats | None) -> Floats:
    if weights is None:
        return np.array([each.mean()])
    with np.errstate(invalid="ignore"):
        return np.asarray(weights @ each / weights.sum(1))


def _summed(told: Told) -> str:
    width, height = told["prediction"]["picture"]
    known = "" if told["psnr"] is None else f", {told['psnr']:.1f} dB"
    return f"{width} x {height} pixels{known}"
