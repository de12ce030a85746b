"""An embedding for each picture: how often the nearest other picture is of its class, and how well all are ranked.

Every picture of the data is a query, and all others are what is looked through, each as it came through the codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semcodec.errors import CorruptStream, DataError, UsageError
from semcodec.specs import InputRequest, TensorSpec
from semcodec.tasks.base import Metric, Record, Score, Stopwatch, Task, Told
from semcodec.tasks.prediction import Answer, Prediction, Size
from semcodec.tasks.statistics import RESAMPLES, SEED, Bootstrap, packed, paired, resampled, share_right, wilson
from semcodec.tensors import as_array

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.container.packets import LocalRecord, Packet
    from semcodec.container.sinks import ChunkRow
    from semcodec.data.base import Dataset
    from semcodec.types import Labels

    Floats = npt.NDArray[np.floating[Any]]

NONE = "embedding"
"""What a prediction has in the place of a class's name."""
SHARPNESS, THRESHOLD = 10.0, 0.5
"""Of ``pair_loss``: how steep it is over the cosine, and the cosine between those of one class and others."""
_BLOCK = 1 << 23  # cosines that are held at a time


class Retrieval(Task):
    """The tail gives (B, D) float32, whose directions are compared."""

    metric = Metric("recall1", "recall at 1", "recall@1 %")

    def check_labels(self, name: str, labels: Labels) -> None:
        if len(np.unique(as_array(labels))) < 2:
            raise UsageError(f"{name} has a single class in its first {len(labels)} samples: nothing to tell apart")

    def example_labels(self, count: int) -> Labels:
        import torch

        return torch.arange(count) % 2

    def label(self, label: Any, classes: Sequence[str], size: Size | None, request: InputRequest) -> Any:
        return classes[int(label)]

    def output(self, classes: int) -> TensorSpec:
        """An embedding of any length."""
        return TensorSpec((None,))

    def port(self, classes: int | None) -> dict[str, str]:
        return {"embedding": "float32[?]"}

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
        return Prediction(
            -1, NONE, 0.0, layers=(packet.layers_present, packet.layers_total), rows=rows, embedding=answer
        )

    def predict_local(self, record: LocalRecord, classes: Sequence[str]) -> Prediction:
        raise CorruptStream(f"record {record.sequence} names a class where a picture's embedding is wanted")

    def numbers(self, prediction: Prediction) -> Any:
        return prediction.embedding

    def to_bytes(self, prediction: Prediction) -> bytes | None:
        return None if prediction.embedding is None else prediction.embedding.astype("<f4").tobytes()

    def from_bytes(self, prediction: Prediction, data: bytes, classes: Sequence[str]) -> Prediction:
        if not data or len(data) % 4:
            raise CorruptStream(f"an answer has {len(data)} bytes where an embedding's floats are due")
        embedding = np.frombuffer(data, "<f4").astype(np.float32)
        if not np.isfinite(embedding).all():
            raise CorruptStream("an answer's embedding has NaN or infinity")
        return replace(prediction, embedding=embedding)

    def score(self, dataset: Dataset, classes: Sequence[str], request: InputRequest, input_bytes: int) -> Score:
        return RetrievalScore()

    def compare(self, first: Record, second: Record) -> dict[str, float]:
        """Differences are of ``recall1``, as of classification (McNemar's test over the queries)."""
        return paired(*([digit == "1" for digit in record["hits"]] for record in (first, second)))

    def scores(self, record: Record, weights: Floats) -> Floats | None:
        """Of the queries among these samples."""
        queried = record.get("queried")
        if not isinstance(queried, str):
            return share_right(record.get("hits"), weights)
        asked = np.frombuffer(queried.encode(), np.uint8) == ord("1")
        if len(asked) != weights.shape[1]:
            return None
        return share_right(record.get("hits"), weights[:, asked])

    def columns(self, record: Record) -> list[tuple[str, Any]]:
        return [("mAP %", 100 * record["map"]), ("bpp", f"{record['bpp']:.4f}")]

    def notes(self, record: Record) -> list[tuple[str, str]]:
        low, high = record["map_interval"]
        told = f"{record['queries']:,}, each looked for among the others; mAP {100 * low:.1f} to {100 * high:.1f} %"
        return [("queries", told)]

    def describe(
        self, prediction: Prediction, classes: Sequence[str], label: Any, names: Sequence[str] | None
    ) -> dict[str, Any]:
        embedding = prediction.embedding
        told = [] if embedding is None else [round(float(value), 5) for value in embedding]
        return {"prediction": {"embedding": told, "where": prediction.where}, "label": label}

    def fields(self, told: Told) -> list[tuple[str, Any]]:
        return [("embedding", _summed(told))]

    def cells(self, told: Told) -> list[tuple[str, Any]]:
        return [("embedding", _summed(told))]

    def headline(self, told: Told) -> list[str]:
        return [f"embedding of {_summed(told)}"]


class RetrievalScore(Score):
    """Collects embeddings and classes. Queries are those of whose class there is another picture."""

    def __init__(self) -> None:
        self.embeddings: list[Floats] = []
        self.labels: list[int] = []
        self.pixels = 0
        self._found: tuple[npt.NDArray[np.bool_], Floats] | None = None

    @property
    def source_bytes(self) -> float:
        return 3 * self.pixels / len(self.labels)

    def add(self, predictions: Sequence[Prediction], labels: Labels, sizes: Sequence[Size] | None) -> None:
        assert sizes is not None
        for prediction, label, size in zip(predictions, labels, sizes, strict=True):
            assert prediction.embedding is not None
            self.embeddings.append(prediction.embedding)
            self.labels.append(int(label))
            self.pixels += size[0] * size[1]
        self._found = None

    def accuracy(self) -> dict[str, Any]:
        hits, precisions = self._ranked()
        right, total = int(hits.sum()), len(hits)
        spread = Bootstrap(float(precisions.mean()), resampled(total) @ precisions / total)
        return {
            "recall1": right / total,
            "recall1_interval": list(wilson(right, total)),
            "map": float(precisions.mean()),
            "map_interval": list(spread.interval()),
            "queries": total,
            "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        }

    def by_sample(self) -> dict[str, Any]:
        hits, precisions = self._ranked()
        found = {"hits": "".join("01"[int(hit)] for hit in hits), "precisions": packed(precisions.round(6).tolist())}
        if len(hits) == len(self.labels):
            return found
        several = [self.labels.count(label) > 1 for label in self.labels]
        return {**found, "queried": "".join("01"[one] for one in several)}

    def rate(self, size: float) -> dict[str, float]:
        return {"bpp": 8 * size * len(self.labels) / self.pixels}

    def _ranked(self) -> tuple[npt.NDArray[np.bool_], Floats]:
        if self._found is None:
            self._found = rank(np.stack(self.embeddings), np.array(self.labels))
        return self._found


def rank(embeddings: Floats, labels: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Of each query whether the nearest other is of its class, and the average precision of all others, by cosine.

    embeddings: (N, D). labels: (N,). Queries, in order, are those of whose class there is another. Raises DataError
    where there is none.
    """
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    directions = embeddings / np.maximum(lengths, 1e-12)
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    queries = np.flatnonzero(counts[inverse] > 1)
    if not queries.size:
        raise DataError(f"of none of the classes of these {len(labels):,} samples is there a second one to be found")
    hits, precisions = [], []
    for start in range(0, len(queries), max(1, _BLOCK // len(labels))):
        rows = queries[start : start + max(1, _BLOCK // len(labels))]
        cosines = directions[rows] @ directions.T
        cosines[np.arange(len(rows)), rows] = -np.inf  # last: the query itself
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :-1]
        right = labels[order] == labels[rows, None]
        found = np.cumsum(right, 1) / np.arange(1, right.shape[1] + 1)
        hits.append(right[:, 0])
        precisions.append((found * right).sum(1) / right.sum(1))
    return np.concatenate(hits), np.concatenate(precisions)


def pair_loss(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """What embeddings (B, D) of samples of classes (B,) learn by: of each pair, whether it is of one class.

    The logistic loss of the cosine over ``THRESHOLD``, ``SHARPNESS`` times (as Zhai et al., 2023), pairs of one class
    and of several weighing alike. Figures have "recall1" within the batch.
    """
    import torch
    import torch.nn.functional as F

    directions = F.normalize(embeddings.float(), dim=1)
    cosines = directions @ directions.T
    same = labels[:, None] == labels[None]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    logits = SHARPNESS * (cosines - THRESHOLD)
    each = F.binary_cross_entropy_with_logits(logits, same.float(), reduction="none")
    kinds = [each[mask].mean() for mask in (same & ~itself, ~same) if bool(mask.any())]
    nearest = cosines.masked_fill(itself, -2).argmax(1)
    recall = (labels[nearest] == labels).float().mean().item()
    return torch.stack(kinds).mean() if kinds else each.mean(), {"recall1": recall}


def _summed(told: Told) -> str:
    values = np.array(told["prediction"]["embedding"])
    known = f"; it is {told['label']}" if told["label"] is not None else ""
    return f"{len(values)} numbers of length {np.linalg.norm(values):.3f}{known}"
