"""Predictions as messages and back. The device's half imports torch for boxes alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semcodec.errors import CorruptStream
from semcodec.serving import messages
from semcodec.tasks.prediction import Prediction
from semcodec.tasks.table import get_task

FLOAT32 = np.dtype("<f4")


def to_message(
    sequence: int,
    prediction: Prediction,
    microseconds: tuple[int, int, int, int],
    *,
    logits: bool,
    least_score: float = 0.0,
    task: str | None = None,
) -> messages.Answer:
    """What the server says of one record. microseconds: in the queue, decoding, recovering, in the tail."""
    found: messages.Boxes | bytes | None = get_task(task).to_bytes(prediction)
    if prediction.boxes is not None:
        boxes = prediction.boxes.above(least_score)
        scores = boxes.scores
        assert scores is not None and prediction.source is not None
        corners = boxes.xyxy.cpu().numpy().astype(FLOAT32).tobytes()
        found = messages.Boxes(
            corners, scores.cpu().numpy().astype(FLOAT32).tobytes(), boxes.classes.tolist(), prediction.source
        )
    sent = prediction.logits if logits else None
    return messages.Answer(
        sequence,
        prediction.index,
        prediction.name,
        prediction.probability,
        prediction.layers,
        prediction.where == "device",
        None if sent is None else sent.astype(FLOAT32).tobytes(),
        found,
        microseconds,
    )


def to_prediction(answer: messages.Answer, classes: Sequence[str], task: str | None = None) -> Prediction:
    """What the device makes of it. classes: the model's. Raises CorruptStream for what cannot be."""
    logits = None if answer.logits is None else _floats(answer.logits, (len(classes),))
    where = "device" if answer.device else "server"
    if not isinstance(answer.boxes, messages.Boxes):
        plain = Prediction(answer.index, answer.name, answer.probability, logits, answer.layers, where)
        return plain if answer.boxes is None else get_task(task).from_bytes(plain, answer.boxes, classes)
    import torch

    from semcodec.boxes import Boxes

    found, count = answer.boxes, len(answer.boxes.classes)
    if any(index >= len(classes) for index in found.classes):
        raise CorruptStream(f"answer {answer.sequence} has a box of a class that the model does not have")
    boxes = Boxes(
        torch.from_numpy(_floats(found.corners, (count, 4))),
        torch.tensor(found.classes, dtype=torch.int64),
        torch.from_numpy(_floats(found.scores, (count,))),
    )
    names = tuple(classes[index] for index in found.classes)
    return Prediction(
        answer.index, answer.name, answer.probability, logits, answer.layers, where, (), boxes, names, found.source
    )


def _floats(data: bytes, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    count = int(np.prod(shape))
    if len(data) != FLOAT32.itemsize * count:
        raise CorruptStream(f"an answer has {len(data)} bytes of numbers where {count} are due")
    return np.frombuffer(data, FLOAT32).astype(np.float32).reshape(shape)
