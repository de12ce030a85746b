"""Boxes of objects: what a detector's output holds, packets that tell their source's size, and average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from semcodec.boxes import Boxes, Letterbox, corners
from semcodec.errors import UsageError
from semcodec.panels import Frame, Panel, UInt8
from semcodec.specs import InputRequest, TensorSpec
from semcodec.tasks import average_precision, statistics
from semcodec.tasks.base import Metric, Record, Score, Stopwatch, Told, match_classes
from semcodec.tasks.in_picture import InPicture, cropped
from semcodec.tasks.prediction import Answer, Prediction, Size
from semcodec.tasks.source import source_size

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.container.packets import Packet
    from semcodec.container.sinks import ChunkRow
    from semcodec.data.base import Dataset
    from semcodec.tasks.base import Floats
    from semcodec.types import Labels

CONFIDENCE = 0.001
"""Least score of a box that counts when detectors are compared."""
SHOWN = 0.25
"""Least score of a box that is shown to a reader."""
OVERLAP = 0.6
"""Intersection over union above which the weaker of two boxes of a class is dropped."""
LIMIT = 300
"""Most boxes of an image."""
CANDIDATES = 30_000
"""Most boxes of an image, the best by score, that are compared with each other."""
_TOGETHER = 1024


class Detection(InPicture):
    """Boxes of objects, see ``InPicture``."""

    metric = Metric("map50", "mAP at IoU 0.5", "mAP50 %")
    listed = "boxes"

    def check_labels(self, name: str, labels: Labels) -> None:
        if not any(map(len, labels)):
            raise UsageError(f"{name} has no boxes in its first {len(labels)} samples to learn from")

    def example_labels(self, count: int) -> Labels:
        import torch

        return [Boxes(torch.tensor([[2.0, 4.0, 20.0, 24.0]]), torch.tensor([row % 2])) for row in range(count)]

    def label(self, label: Any, classes: Sequence[str], size: Size | None, request: InputRequest) -> Any:
        return _place(size or (request.width, request.height), request).to_source(label)

    def output(self, classes: int) -> TensorSpec:
        """Boxes as centre x, y, width, height in pixels of the input, then a score for each class."""
        return TensorSpec((None, 4 + classes))

    def output_fault(self, output: Tensor) -> str | None:
        scores = output[..., 4:]
        return None if bool(((scores >= 0) & (scores <= 1)).all()) else "scores of boxes outside 0 to 1"

    def port(self, classes: int | None) -> dict[str, str]:
        return {"boxes": "[corners, class, score]"}

    def answers(self, output: Tensor, clock: Stopwatch) -> list[Answer]:
        import torchvision.ops  # noqa: F401 - which takes a second, and is no part of the stage

        with clock("nms"):
            return [nms(sample) for sample in output]

    def predict(
        self,
        packet: Packet,
        answer: Answer,
        classes: Sequence[str],
        request: InputRequest,
        rows: tuple[ChunkRow, ...],
    ) -> Prediction:
        size = source_size(packet)
        boxes = _place(size, request).to_source(answer)
        names = tuple(classes[i] for i in boxes.classes.tolist())
        assert boxes.scores is not None
        index, name, probability = -1, "nothing", 0.0
        if names:
            index, name, probability = int(boxes.classes[0]), names[0], float(boxes.scores[0])
        layers = packet.layers_present, packet.layers_total
        return Prediction(index, name, probability, None, layers, "server", rows, boxes, names, size)

    def numbers(self, prediction: Prediction) -> Any:
        return prediction.logits if prediction.boxes is None else prediction.boxes.xyxy.numpy()

    def score(self, dataset: Dataset, classes: Sequence[str], request: InputRequest, input_bytes: int) -> Score:
        return DetectionScore(dataset, classes, request)

    def compare(self, first: Record, second: Record) -> dict[str, float]:
        """Differences are of ``map50``, interval and p from a bootstrap over images (``average_precision.paired``)."""
        return average_precision.paired(*(average_precision.Matches.read(r["matches"]) for r in (first, second)))

    def scores(self, record: Record, weights: Floats) -> Floats | None:
        if not isinstance(record.get("matches"), str):
            return None
        matches = average_precision.Matches.read(record["matches"])
        return matches.average_precision(weights) if matches.images == weights.shape[1] else None

    def columns(self, record: Record) -> list[tuple[str, Any]]:
        return [("mAP50-95 %", 100 * record["map50_95"]), ("bpp", f"{record['bpp']:.4f}")]

    def notes(self, record: Record) -> list[tuple[str, str]]:
        among = f" of {', '.join(record['classes'])}" if "classes" in record else ""
        return [("objects", f"{record['objects']:,}{among}")]

    def describe(
        self, prediction: Prediction, classes: Sequence[str], label: Any, names: Sequence[str] | None
    ) -> dict[str, Any]:
        if prediction.boxes is None:
            return super().describe(prediction, classes, None, names)
        shown = prediction.boxes.above(SHOWN)
        assert shown.scores is not None
        boxes = [
            {"name": name, "score": round(score, 4), "xyxy": _rounded(box)}
            for name, score, box in zip(prediction.names, shown.scores.tolist(), shown.xyxy.tolist(), strict=False)
        ]
        return {
            "prediction": {"boxes": boxes, "where": prediction.where},
            "label": _listed(label, names),
            "source": list(prediction.source or ()),
        }

    def describe_unanswered(self, label: Any, names: Sequence[str] | None, size: Size) -> dict[str, Any]:
        return {"prediction": None, "label": _listed(label, names), "source": list(size)}

    def table(self, told: Told) -> tuple[list[str], list[tuple[Any, ...]]] | None:
        boxes = told["prediction"].get("boxes")
        head = ["found", "score %", "left", "top", "right", "bottom"]
        return (head, [(box["name"], 100 * box["score"], *box["xyxy"]) for box in boxes]) if boxes else None

    def summed(self, told: Told) -> str:
        """What was found in an image and, where that is known, how much there is."""
        names = [box["name"] for box in told["prediction"]["boxes"]]
        found = ", ".join(f"{name} {names.count(name)}" for name in dict.fromkeys(names)) or "nothing"
        width, height = told["source"]
        there = "" if told["label"] is None else f"; {len(told['label'])} objects are there"
        return f"{found}, in {width} x {height} pixels{there}"

    def panel(self, prediction: Prediction, pixels: UInt8, sent: str) -> Panel:
        assert prediction.boxes is not None and prediction.source is not None
        width, height = prediction.source
        shown = prediction.boxes.above(SHOWN)
        assert shown.scores is not None
        columns = shown.xyxy.tolist(), prediction.names, shown.scores.tolist(), shown.classes.tolist()
        frames = tuple(
            Frame((left / width, top / height, right / width, bottom / height), f"{name} {score:.2f}", label)
            for (left, top, right, bottom), name, score, label in zip(*columns, strict=False)  # names are of all found
        )
        return Panel(f"{sent}{len(frames)} found", cropped(pixels, prediction.source), frames=frames)


class DetectionScore(Score):
    """Collects boxes, in pixels of the source. Those of classes that the data does not count are passed over."""

    def __init__(self, dataset: Dataset, classes: Sequence[str], request: InputRequest) -> None:
        import torch

        average_precision.check()
        self.request, self.classes, self.chosen = request, dataset.classes, dataset.counted
        counted = list(range(len(dataset.classes)) if dataset.counted is None else dataset.counted)
        self.to_data = torch.full((len(classes),), -1)
        self.to_data[match_classes(dataset, classes, counted)] = torch.tensor(counted)
        self.found: list[Boxes] = []
        self.there: list[Boxes] = []
        self.pixels = 0
        self._judged: average_precision.Precision | None = None

    @property
    def source_bytes(self) -> float:
        return 3 * self.pixels / len(self.there)

    def add(self, predictions: Sequence[Prediction], labels: Labels, sizes: Sequence[Size] | None) -> None:
        assert sizes is not None
        for prediction, boxes, size in zip(predictions, labels, sizes, strict=True):
            self.there.append(_place(size, self.request).to_source(boxes))
            found = prediction.boxes or Boxes.none(scored=True)
            found = replace(found, classes=self.to_data[found.classes])
            self.found.append(found[found.classes >= 0])
            self.pixels += size[0] * size[1]

    def accuracy(self) -> dict[str, Any]:
        judged = self._judge()
        found: dict[str, Any] = {
            "map50": judged.map50,
            "map50_95": judged.map50_95,
            "map50_interval": list(average_precision.interval(judged.matches)),
            "bootstrap": {"resamples": statistics.RESAMPLES, "seed": statistics.SEED},
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


def nms(output: Tensor, confidence: float = CONFIDENCE, iou: float = OVERLAP, limit: int = LIMIT) -> Boxes:
    """A detector's output for one sample, (N, 4 + classes), to its boxes, best first, by non-maximum suppression.

    output: centre x, y, width, height in pixels, then by class a score in [0, 1]. A box counts for each class whose
    score is at least ``confidence``, and of two of one class that overlap by more than ``iou`` the weaker is dropped.
    The boxes are on the CPU. What is not finite is no box.
    """
    output = output.detach().float().cpu()
    rows, classes = (output[:, 4:] >= confidence).nonzero(as_tuple=True)
    usable = output[:, :4].isfinite().all(1)[rows] & output[rows, 4 + classes].isfinite()
    rows, classes = rows[usable], classes[usable]
    scores, order = output[rows, 4 + classes].sort(descending=True, stable=True)
    order = order[:CANDIDATES]
    found = Boxes(corners(output[rows[order], :4]), classes[order], scores[: len(order)])
    return found[_kept(found, iou, limit)]


def _kept(boxes: Boxes, iou: float, limit: int) -> Tensor:
    """Indices of the boxes, best first, that no better one which is itself kept suppresses; ``limit`` at most.

    Whether one is kept depends on better ones alone, so that blocks are settled one after the other, each together
    with what was kept of those before, until there are enough. Classes are taken one by one: shifting each by an
    offset of its own, as torchvision's ``batched_nms`` does, changes overlaps in their last bits.
    """
    import torch
    from torchvision.ops import nms as suppress

    ranks = -torch.arange(len(boxes), dtype=torch.float32)
    threshold = torch.tensor(iou).item()  # as float32, in which the overlaps are
    kept = torch.zeros(0, dtype=torch.int64)
    for start in range(0, len(boxes), _TOGETHER):
        block = torch.cat((kept, torch.arange(start, min(start + _TOGETHER, len(boxes)))))
        of = boxes.classes[block]
        parts = [block[of == label] for label in set(of.tolist())]
        kept = torch.cat([rows[suppress(boxes.xyxy[rows], ranks[rows], threshold)] for rows in parts]).sort().values
        if len(kept) >= limit:
            break
    return kept[:limit]


def _place(size: Size, request: InputRequest) -> Letterbox:
    return Letterbox.of(*size, request.width, request.height)


def _listed(label: Boxes | None, names: Sequence[str] | None) -> list[dict[str, Any]] | None:
    """The boxes that are there, with the names of their classes; None where that is not known."""
    if label is None or not names:
        return None
    there = zip(label.classes.tolist(), label.xyxy.tolist(), strict=True)
    return [{"name": names[index], "xyxy": _rounded(box)} for index, box in there]


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in box]
