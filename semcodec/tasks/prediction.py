"""What the server says of one sample, whatever the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.tensors import Valued

if TYPE_CHECKING:
    import numpy.typing as npt

    from semcodec.boxes import Boxes
    from semcodec.container.sinks import ChunkRow

    Float32 = npt.NDArray[np.float32]
    UInt8 = npt.NDArray[np.uint8]

Size = tuple[int, int]

Answer = Any
"""Of one sample, by its task: logits, (classes,) float32, ``Boxes`` in pixels of the input, a mask, or another's."""


@dataclass(frozen=True, eq=False)
class Prediction(Valued):
    """The answer for one sample. ``logits`` is None for an answer that the device gave itself, and for boxes.

    boxes, names: of a detector, what it found, in pixels of the source, best first, and the class of each; source is
    its width and height. index, name and probability are then those of the best: -1, "nothing" and 0 where there is
    none.
    mask: of a model that segments, uint8 (h, w), the class of each place of the picture as the input shows it; source
    is the picture's own width and height, and index, name and probability are the class of most places and its share.
    embedding: float32 (D,), of a model for retrieval; index, name and probability are then -1, "embedding" and 0.
    picture: uint8 (h, w, 3), RGB, of a model that reconstructs the input, less what a letterbox put around it; index,
    name and probability are then -1, "picture" and 0.
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
    mask: UInt8 | None = field(default=None, repr=False)
    embedding: Float32 | None = field(default=None, repr=False)
    picture: UInt8 | None = field(default=None, repr=False)

    def _repr_html_(self) -> str:
        """For notebooks: the answer and how sure it is, or the boxes."""
        from html import escape

        from semcodec import _html

        layers = "" if self.layers[1] == 1 else f", {self.layers[0]} of {self.layers[1]} layers"
        head = f"<p><b>{escape(self.name)}</b> {self.probability:.1%}, by the {escape(self.where)}{layers}</p>"
        if self.boxes is not None:
            scores = [1.0] * len(self.names) if self.boxes.scores is None else self.boxes.scores
            found = zip(self.names, scores, self.boxes.xyxy, strict=True)
            rows = [(name, float(score), ", ".join(f"{v:.0f}" for v in box)) for name, score, box in found]
            return head + _html.table(("class", "score", "left, top, right, bottom"), rows[:20])
        return head + _html.bar(self.probability, self.name)

    @classmethod
    def of_logits(cls, logits: Float32, classes: Sequence[str], layers: tuple[int, int], **more: Any) -> Prediction:
        """The most probable class, by softmax, of logits (classes,)."""
        index = int(logits.argmax())
        scaled = np.exp((logits - logits.max()).astype(np.float64))
        return cls(index, classes[index], float(scaled[index] / scaled.sum()), logits, layers, **more)
