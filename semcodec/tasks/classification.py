"""One class for each sample, of images or of clips: logits, and the share of samples that are recognised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.specs import InputRequest, TensorSpec
from semcodec.tasks.base import Metric, Record, Score, Stopwatch, Task, Told, match_classes
from semcodec.tasks.prediction import Answer, Prediction, Size
from semcodec.tasks.statistics import paired, share_right, wilson
from semcodec.tensors import as_array

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.container.packets import Packet
    from semcodec.container.sinks import ChunkRow
    from semcodec.data.base import Dataset
    from semcodec.tasks.base import Floats
    from semcodec.types import Labels

TOP = 5
"""Classes that are told of a prediction, the best."""


class Classification(Task):
    """Also the task "video"."""

    metric = Metric("top1", "top-1 accuracy", "top-1 %")

    def example_labels(self, count: int) -> Labels:
        import torch

        return torch.arange(count) % 2

    def label(self, label: Any, classes: Sequence[str], size: Size | None, request: InputRequest) -> Any:
        return classes[label]

    def output(self, classes: int) -> TensorSpec:
        return TensorSpec((classes,))

    def port(self, classes: int | None) -> dict[str, str]:
        return {"logits": str(TensorSpec((classes,)))}

    def answers(self, output: Tensor, clock: Stopwatch) -> list[Answer]:
        return list(as_array(output))

    def predict(
        self,
        packet: Packet,
        answer: Answer,
        classes: Sequence[str],
        request: InputRequest,
        rows: tuple[ChunkRow, ...],
    ) -> Prediction:
        return Prediction.of_logits(answer, classes, (packet.layers_present, packet.layers_total), rows=rows)

    def score(self, dataset: Dataset, classes: Sequence[str], request: InputRequest, input_bytes: int) -> Score:
        return ClassificationScore(match_classes(dataset, classes, range(len(dataset.classes))), input_bytes)

    def compare(self, first: Record, second: Record) -> dict[str, float]:
        return paired(*([digit == "1" for digit in record["correct"]] for record in (first, second)))

    def scores(self, record: Record, weights: Floats) -> Floats | None:
        return share_right(record.get("correct"), weights)

    def describe(
        self, prediction: Prediction, classes: Sequence[str], label: Any, names: Sequence[str] | None
    ) -> dict[str, Any]:
        known = label is not None and label in classes
        return {
            "prediction": {
                "index": prediction.index,
                "name": prediction.name,
                "probability": prediction.probability,
                "top5": _top(classes, prediction),
                "where": prediction.where,
            },
            "logits": None if prediction.logits is None else prediction.logits.tolist(),
            "label": label,
            "top1": float(prediction.name == label) if known else None,
        }

    def describe_unanswered(self, label: Any, names: Sequence[str] | None, size: Size) -> dict[str, Any]:
        return {"prediction": None, "logits": None, "label": label, "top1": None}

    def fields(self, told: Told) -> list[tuple[str, Any]]:
        prediction = told["prediction"]
        verdict = f"  ({_verdict(told)})" if _verdict(told) else ""
        others = ", ".join(f"{name} {100 * p:.1f} %" for name, p in prediction["top5"][1:])
        return [("recognised", f"{_recognised(told)}{verdict}"), *([("then", others)] if others else [])]

    def cells(self, told: Told) -> list[tuple[str, Any]]:
        prediction = told["prediction"]
        probability = f"{100 * prediction['probability']:.1f} %"
        return [("recognised", prediction["name"]), ("probability", probability), ("", _verdict(told) or None)]

    def headline(self, told: Told) -> list[str]:
        if told["top1"] is None:
            return [_recognised(told, " ")]
        return [_recognised(told, " "), "correct" if told["top1"] else f"wrong, it is {told['label']}"]


class ClassificationScore(Score):
    """Counts what was recognised. to_model: for each of the data's labels, the model's class."""

    def __init__(self, to_model: Sequence[int], input_bytes: int) -> None:
        self.to_model, self.input_bytes = to_model, input_bytes
        self.right: list[bool] = []

    @property
    def source_bytes(self) -> float:
        return self.input_bytes

    def add(self, predictions: Sequence[Prediction], labels: Labels, sizes: Sequence[Size] | None) -> None:
        self.right += [p.index == self.to_model[int(label)] for p, label in zip(predictions, labels, strict=True)]

    def accuracy(self) -> dict[str, Any]:
        right, total = sum(self.right), len(self.right)
        return {"top1": right / total, "top1_interval": list(wilson(right, total))}

    def by_sample(self) -> dict[str, Any]:
        return {"correct": "".join("01"[right] for right in self.right)}


def _top(classes: Sequence[str], prediction: Prediction) -> list[tuple[str, float]]:
    if prediction.logits is None:
        return [(prediction.name, prediction.probability)]
    scaled = np.exp((prediction.logits - prediction.logits.max()).astype(np.float64))
    best = np.argsort(-prediction.logits, kind="stable")[:TOP]
    return [(classes[i], float(scaled[i] / scaled.sum())) for i in best]


def _recognised(told: Told, space: str = "  ") -> str:
    return f"{told['prediction']['name']}{space}{100 * told['prediction']['probability']:.1f} %"


def _verdict(told: Told) -> str:
    said = []
    if told["prediction"]["where"] == "device":
        said.append("by the device itself")
    if told["top1"] is not None:
        said.append("correct" if told["top1"] else f"wrong: it is {told['label']}")
    elif told["label"] is not None:
        said.append(f"it is {told['label']}, which the model does not know")
    return "; ".join(said)
