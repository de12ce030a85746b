"""What a detector's output holds: boxes by non-maximum suppression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semcodec.boxes import Boxes, corners, overlaps

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCE = 0.001
"""Least score of a box that counts when detectors are compared."""
SHOWN = 0.25
"""Least score of a box that is shown to a reader."""
OVERLAP = 0.6
"""Intersection over union from which on the weaker of two boxes of a class is dropped."""
LIMIT = 300
"""Most boxes of an image."""
CANDIDATES = 30_000
"""Most boxes of an image, the best by score, that are compared with each other."""
_TOGETHER = 1024


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

    Those that a better one suppresses which is itself suppressed are kept, so a block of boxes is settled by going
    over its matrix until nothing changes: as often as the longest chain of such boxes, not once for each box.
    """
    import torch

    def suppresses(one: Tensor, other: Tensor) -> Tensor:
        same = boxes.classes[one][:, None] == boxes.classes[other]
        return same & (overlaps(boxes.xyxy[one], boxes.xyxy[other]) > iou)

    kept = torch.zeros(0, dtype=torch.int64)
    for start in range(0, len(boxes), _TOGETHER):
        block = torch.arange(start, min(start + _TOGETHER, len(boxes)))
        block = block[~suppresses(kept, block).any(0)]
        matrix = suppresses(block, block).triu(1)
        alive = torch.ones(len(block), dtype=torch.bool)
        while not torch.equal(alive, after := ~(matrix & alive[:, None]).any(0)):
            alive = after
        kept = torch.cat((kept, block[alive]))
        if len(kept) >= limit:
            break
    return kept[:limit]
