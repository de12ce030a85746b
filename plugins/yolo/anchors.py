"""Detection with anchors, as YOLOv5 does it up to v6.0 and v7.0: layer, decoding and loss.

Written from the equations (see README.md), not from any code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.boxes import Boxes, centred

STRIDES = (8, 16, 32)
ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""Widths and heights in pixels, by stride."""

REACH = 4.0
"""An anchor is for boxes at most so many times as wide, as high, or as narrow or low."""
BALANCE = (4.0, 1.0, 0.4)
"""Weights of the objectness of the three maps: small objects are the many."""
BOX, OBJECTNESS, CLASS = 0.05, 1.0, 0.5
"""Weights of the loss's parts for 80 classes in images of 640 pixels."""


class AnchorDetect(nn.Module):
    """Maps of strides 8, 16 and 32 to raw predictions (B, anchors, H, W, 5 + classes): x, y, w, h, objectness, classes.

    channels: of the maps. ``f`` is what GraphDetector reads.
    """

    f = (17, 20, 23)
    anchors: Tensor

    def __init__(self, classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("anchors", torch.tensor(ANCHORS) / torch.tensor(STRIDES).view(3, 1, 1))  # in cells
        self.m = nn.ModuleList(nn.Conv2d(count, len(ANCHORS[0]) * (5 + classes), 1) for count in channels)
        with torch.no_grad():  # begins with few objects: 8 in an image of 640 pixels, all classes alike
            for layer, stride in zip(self.m, STRIDES, strict=True):
                assert isinstance(layer, nn.Conv2d) and layer.bias is not None
                bias = layer.bias.view(len(ANCHORS[0]), -1)
                bias[:, 4] += math.log(8 / (640 / stride) ** 2)
                bias[:, 5:] += math.log(0.6 / max(classes - 1, 0.6))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The maps to raw predictions, a tensor for each."""
        return [
            layer(x).unflatten(1, (len(ANCHORS[0]), -1)).permute(0, 1, 3, 4, 2)
            for layer, x in zip(self.m, maps, strict=True)
        ]

    def decode(self, raw: Sequence[Tensor]) -> Tensor:
        """To (B, N, 4 + classes): cx, cy, w, h in pixels, objectness times class; by map, anchor, row, column.

        x = (2 s(tx) - 0.5 + column) stride, w = (2 s(tw))^2 anchor, and likewise y and h, s the logistic function.
        """
        found = []
        for level, (t, stride) in enumerate(zip(raw, STRIDES, strict=True)):
            rows, columns = (torch.arange(side, device=t.device) for side in t.shape[2:4])
            cell = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
            s = t.sigmoid()
            middle = (2 * s[..., :2] - 0.5 + cell) * stride
            size = (2 * s[..., 2:4]).square() * (self.anchors[level] * stride)[:, None, None]
            found.append(torch.cat((middle, size, s[..., 4:5] * s[..., 5:]), -1).flatten(1, 3))
        return torch.cat(found, 1)

    def loss(self, raw: Sequence[Tensor], labels: Sequence[Boxes]) -> tuple[Tensor, dict[str, float]]:
        """Box (complete IoU), objectness and class losses, each a mean over what it is about, weighed and summed."""
        truth, classes, image = _together(labels, raw[0].device)
        box = cls = obj = raw[0].new_zeros(())
        for level, (t, stride) in enumerate(zip(raw, STRIDES, strict=True)):
            anchors = self.anchors[level]
            row, anchor, cell = assign(truth / stride, anchors, t.shape[3], t.shape[2])
            place = image[row], anchor, cell[:, 1], cell[:, 0]
            target = torch.zeros_like(t[..., 4])
            if len(row):
                guess = t[place]
                s = guess[:, :4].sigmoid()
                made = torch.cat((2 * s[:, :2] - 0.5 + cell, (2 * s[:, 2:]).square() * anchors[anchor]), 1)
                iou = complete_iou(made, truth[row] / stride)
                box = box + (1 - iou).mean()
                index = torch.arange(target.numel(), device=t.device).view(target.shape)[place]
                best = target.flatten().scatter_reduce(0, index, iou.detach().clamp(0), "amax")  # of several boxes
                target = best.view(target.shape)
                if self.classes > 1:
                    wanted = F.one_hot(classes[row], self.classes).to(guess.dtype)
                    cls = cls + F.binary_cross_entropy_with_logits(guess[:, 5:], wanted)
            obj = obj + BALANCE[level] * F.binary_cross_entropy_with_logits(t[..., 4], target)
        side = max(raw[0].shape[2:4]) * STRIDES[0]
        parts = {"box": BOX * box, "obj": OBJECTNESS * (side / 640) ** 2 * obj, "cls": CLASS * self.classes / 80 * cls}
        return torch.stack(list(parts.values())).sum(), {name: part.item() for name, part in parts.items()}


def _together(labels: Sequence[Boxes], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes of a batch as centre and size in pixels (n, 4), their classes (n,), and the samples they are of (n,)."""
    counts = torch.tensor([len(boxes) for boxes in labels])
    image = torch.arange(len(labels)).repeat_interleave(counts)
    xyxy = torch.cat([boxes.xyxy for boxes in labels])
    classes = torch.cat([boxes.classes for boxes in labels])
    return centred(xyxy.float()).to(device), classes.to(device), image.to(device)


def assign(truth: Tensor, anchors: Tensor, columns: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which predictions answer for which boxes: rows of ``truth`` (m,), anchors (m,), cells x, y (m, 2).

    truth: cx, cy, w, h in cells (n, 4); anchors: (a, 2) in cells. A box is answered for by every anchor of about its
    shape, in its centre's cell and in the nearest beside it and the nearest above or below, where there is one.
    """
    ratio = truth[:, None, 2:] / anchors
    row, anchor = (torch.maximum(ratio, 1 / ratio).amax(-1) < REACH).nonzero(as_tuple=True)
    centre = truth[row, :2]
    home = centre.floor()
    towards = torch.where(centre - home < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(towards[:, 0])
    steps = torch.stack((torch.zeros_like(towards), torch.stack((towards[:, 0], zero), 1),
                         torch.stack((zero, towards[:, 1]), 1)))  # fmt: skip
    cells = (home + steps).long()
    limit = torch.tensor([columns, rows], device=truth.device)
    inside = ((cells >= 0) & (cells < limit)).all(-1)
    count = len(steps)
    return row.expand(count, -1)[inside], anchor.expand(count, -1)[inside], cells[inside]


def complete_iou(first: Tensor, second: Tensor) -> Tensor:
    """Complete IoU (Zheng et al., 2020) of boxes cx, cy, w, h (n, 4), one with one: (n,), at most 1.

    Overlap, less the squared distance of the centres over that of the corners of the box around both, less a term for
    another ratio of width and height.
    """
    (c1, s1), (c2, s2) = ((boxes[:, :2], boxes[:, 2:]) for boxes in (first, second))
    low, high = (c1 - s1 / 2, c2 - s2 / 2), (c1 + s1 / 2, c2 + s2 / 2)
    common = (torch.minimum(*high) - torch.maximum(*low)).clamp(0).prod(1)
    iou = common / (s1.prod(1) + s2.prod(1) - common + 1e-7)
    around = (torch.maximum(*high) - torch.minimum(*low)).square().sum(1)
    apart = (c1 - c2).square().sum(1) / (around + 1e-7)
    angles = [torch.atan(size[:, 0] / (size[:, 1] + 1e-7)) for size in (s1, s2)]
    shape = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    with torch.no_grad():
        weight = shape / (1 - iou + shape + 1e-7)
    return iou - apart - weight * shape
