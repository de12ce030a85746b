"""What the server says of one sample, and how it comes from what the model gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.boxes import Boxes, Letterbox
from semcodec.container.packets import LocalRecord, Packet
from semcodec.container.primitives import read_varint, varint
from semcodec.container.sinks import ChunkRow
from semcodec.errors import CorruptStream, TruncatedStream
from semcodec.specs import InputRequest

if TYPE_CHECKING:
    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]

Size = tuple[int, int]

Answer = Any
"""Of one sample: logits, (classes,) float32, or ``Boxes`` in pixels of the input."""

SOURCE = "source"
"""The chunk before a detector's own: two varints, width and height of the source, where its boxes are told."""
MAX_SIZE = 10
"""Bytes of that chunk."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one sample. ``logits`` is None for an answer that the device gave itself, and for boxes.

    boxes, names: of a detector, what it found, in pixels of the source, best first, and the class of each; source is
    its width and height. index, name and probability are then those of the best: -1, "nothing" and 0 where there is
    none.
    layers: how many of the packet's layers there were. rows: its chunks as they were read.
    """

    index: int
    name: str
    probability: float
    logits: Float32 | None = field(default=None, repr=False)
    layers: tuple[int, int] = (1, 1)
    where: str = "server"
    rows: tuple[ChunkRow, ...] = field(default=(), repr=False)
    boxes: Boxes | None = field(default=None, repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)
    source: Size | None = None


def of_packet(
    packet: Packet, answer: Answer, classes: Sequence[str], request: InputRequest, rows: tuple[ChunkRow, ...]
) -> Prediction:
    """rows: the packet's chunks as they were read. Raises CorruptStream."""
    layers = packet.layers_present, packet.layers_total
    if not isinstance(answer, Boxes):
        index = int(answer.argmax())
        scaled = np.exp((answer - answer.max()).astype(np.float64))
        return Prediction(index, classes[index], float(scaled[index] / scaled.sum()), answer, layers, rows=rows)
    size = source_size(packet)
    boxes = Letterbox.of(*size, request.width, request.height).to_source(answer)
    names = tuple(classes[i] for i in boxes.classes.tolist())
    assert boxes.scores is not None
    index, name, probability = -1, "nothing", 0.0
    if names:
        index, name, probability = int(boxes.classes[0]), names[0], float(boxes.scores[0])
    return Prediction(index, name, probability, None, layers, "server", rows, boxes, names, size)


def of_local(record: LocalRecord, classes: Sequence[str]) -> Prediction:
    """Of a sample that the device answered itself. Raises CorruptStream."""
    if record.index >= len(classes):
        raise CorruptStream(f"record {record.sequence} names class {record.index} of {len(classes)}")
    return Prediction(record.index, classes[record.index], record.probability, where="device")


def size_bytes(size: Size) -> bytes:
    return b"".join(varint(side) for side in size)


def source_size(packet: Packet) -> Size:
    """Raises CorruptStream where a packet does not say what picture its boxes lie in."""
    data = packet.chunks[0].verify(SOURCE) if packet.chunks else b""
    stream = BytesIO(data)
    try:
        width, height = (read_varint(stream, SOURCE) for _ in range(2))
    except TruncatedStream:
        width = height = 0
    if not (width and height) or stream.read(1):
        raise CorruptStream(f"packet {packet.sequence}: does not have its source's width and height")
    return width, height
