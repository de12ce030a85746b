"""How the embedded detector learns: from scenes moved, stretched and recoloured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.boxes import Boxes
from semcodec.interfaces import Backbone
from semcodec.tensors import beside
from semcodec.training.loop import Batch, Job, Step

STRETCH = (0.8, 1.25)
SHIFT = 0.08
"""Of a side, each way."""
LEFT = 0.5
"""Share of a box that must have stayed inside."""


def vary_boxes(pixels: Tensor, labels: Sequence[Boxes], rng: np.random.Generator) -> tuple[Tensor, list[Boxes]]:
    """Images (B, 3, H, W) and their boxes stretched by axis and shifted, colours exchanged or turned over.

    labels: none where no boxes are needed.
    """
    count, side = len(pixels), pixels.new_tensor([pixels.shape[3], pixels.shape[2]])
    scale = beside(np.exp(rng.uniform(np.log(STRETCH[0]), np.log(STRETCH[1]), (count, 2))).astype(np.float32), pixels)
    shift = beside(rng.uniform(-SHIFT, SHIFT, (count, 2)).astype(np.float32), pixels)
    theta = pixels.new_zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = 1 / scale.unbind(1)[0], 1 / scale.unbind(1)[1]
    theta[:, :, 2] = -2 * shift / scale  # grid_sample asks, for a place of the result, where in the source it is
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    pixels = pixels[:, beside(rng.permutation(3), pixels)]
    turned = beside(rng.random(count) < 0.5, pixels)[:, None, None, None]
    pixels = torch.where(turned, 1 - pixels, pixels)
    out = []
    for boxes, by, to in zip(labels, scale, shift, strict=bool(labels)):
        xyxy = (boxes.xyxy.view(-1, 2, 2) - side / 2) * by + side * (to + 0.5)
        cut = xyxy.clamp(min=0).minimum(side)
        inside = (cut[:, 1] - cut[:, 0]).prod(1) > LEFT * (xyxy[:, 1] - xyxy[:, 0]).prod(1)
        out.append(Boxes(cut.flatten(1), boxes.classes)[inside])
    return pixels, out


def recipe(job: Job) -> list[Step]:
    """One step: the whole detector, by its own loss."""
    backbone = job.modules["backbone"]
    assert isinstance(backbone, Backbone)

    def detect(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        pixels, labels = vary_boxes(batch.pixels, batch.labels, batch.rng)
        return backbone.task_loss({"image": pixels}, "input", labels)

    return [Step("detector", [backbone], detect, min(80_000, 100 * len(job.dataset)), 3e-3, 64)]
