"""What the embedded detector learns by: each cell near the middle of a box shall find it, and know how well it did."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.boxes import Boxes, corners

REACH = 1.5
"""Cells about the middle of a box, to each side, that shall find it (centre sampling: Tian et al., 2019)."""
BOX = 2.0
"""Weight of the boxes beside the scores."""


def assign(boxes: Boxes, places: Tensor, stride: int) -> Tensor:
    """For each place (N, 2) the box that it shall find, int64 (N,), the smallest of several; -1 where there is none."""
    if not len(boxes):
        return torch.full(places.shape[:1], -1, device=places.device)
    xyxy = boxes.xyxy.to(places)
    middle, size = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
    near = ((places[:, None] - middle).abs() < REACH * stride).all(-1)
    area = torch.where(near, size.prod(-1), torch.inf)
    return torch.where(near.any(1), area.argmin(1), -1)


def detection_loss(
    boxes: Tensor, scores: Tensor, places: Tensor, stride: int, labels: Sequence[Boxes]
) -> tuple[Tensor, dict[str, float]]:
    """Quality focal loss of the scores (Li et al., 2020) and 1 - generalised IoU of the boxes, by cell that has one.

    boxes: (B, N, 4) cx, cy, w, h in pixels; scores: (B, N, classes) logits; places: (N, 2). The score of the right
    class shall be the overlap that the box has reached, all others 0; what is far from it counts more.
    """
    chosen = torch.stack([assign(truth, places, stride) for truth in labels])
    there = chosen >= 0
    count = there.sum().clamp(min=1)
    truth = torch.cat([truth.xyxy.to(boxes)[row[row >= 0]] for truth, row in zip(labels, chosen, strict=True)])
    classes = torch.cat([truth.classes.to(chosen)[row[row >= 0]] for truth, row in zip(labels, chosen, strict=True)])
    iou, generalised = overlap(corners(boxes[there]), truth)
    wanted = torch.zeros_like(scores)
    wanted[(*there.nonzero(as_tuple=True), classes)] = iou.detach()
    distance = (wanted - scores.sigmoid()).square()
    score = (distance * F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")).sum() / count
    box = (1 - generalised).sum() / count
    figures = {"score": score.item(), "box": box.item(), "iou": (iou.detach().sum() / count).item()}
    return score + BOX * box, figures


def overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al., 2019) of corner boxes (n, 4), one with one."""

    def area(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(0).prod(-1)

    (low1, high1), (low2, high2) = ((boxes[:, :2], boxes[:, 2:]) for boxes in (first, second))
    common = area(torch.maximum(low1, low2), torch.minimum(high1, high2))
    union = area(low1, high1) + area(low2, high2) - common
    around = area(torch.minimum(low1, low2), torch.maximum(high1, high2))
    iou = common / union.clamp(min=1e-7)
    return iou, iou - (around - union) / around.clamp(min=1e-7)
