"""The embedded model that segments: a class for each pixel, by what the detector's head gives at d3."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.class_masks import IGNORED, pixel_loss, targets
from semcodec.interfaces import Features, Labels
from semcodec.pipeline.weights import fill, read_tensors
from semcodec.tensors import beside
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.det_nano.nano import Staged, conv
from semcodec_plugins.det_nano.recipe import SHIFT, STRETCH
from semcodec_plugins.det_nano.spec import HEAD, STAGES

WIDTHS = (48, 32, 24)
"""Channels of the maps at an eighth, a quarter and half of the picture's side."""


class Enlarging(nn.Module):
    """A map (B, C, H / 8, W / 8) to logits (B, classes, H, W): convolutions, each on a map of twice the side."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        before = (channels, *WIDTHS)
        self.steps = nn.ModuleList([conv(before[i], width) for i, width in enumerate(WIDTHS)])
        self.logits = nn.Conv2d(WIDTHS[-1], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class; float32."""
        for number, step in enumerate(self.steps):
            x = step(F.interpolate(x, scale_factor=2.0) if number else x)
        return F.interpolate(self.logits(x).float(), scale_factor=2.0, mode="bilinear", align_corners=False)


class SegNano(Staged):
    """A class for each pixel: see ``Staged``."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.segment = Enlarging(STAGES["neck"].channels, len(classes))

    def tail(self, features: Features, cut: str) -> Tensor:
        """To logits (B, classes, 96, 96) float32."""
        logits: Tensor = self.segment(self.last(features, cut))
        return logits

    def task_loss(self, features: Features, cut: str, labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the pixels whose class is known. labels: masks of the sources."""
        return pixel_loss(self.tail(features, cut), labels)


def vary_masks(pixels: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, list[npt.NDArray[np.uint8]]]:
    """Images (B, 3, H, W) and masks, int64 (B, H, W), stretched by axis and shifted, colours exchanged or turned over.

    Masks come out as uint8 (H, W) each; what moved in from outside is ignored.
    """
    count = len(pixels)
    scale = beside(np.exp(rng.uniform(np.log(STRETCH[0]), np.log(STRETCH[1]), (count, 2))).astype(np.float32), pixels)
    theta = pixels.new_zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = 1 / scale.unbind(1)[0], 1 / scale.unbind(1)[1]
    theta[:, :, 2] = beside(rng.uniform(-2 * SHIFT, 2 * SHIFT, (count, 2)).astype(np.float32), pixels)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    pixels = pixels[:, beside(rng.permutation(3), pixels)]
    turned = beside(rng.random(count) < 0.5, pixels)[:, None, None, None]
    above = masks[:, None].float() - IGNORED  # grid_sample fills with zeros
    moved = F.grid_sample(above, grid, mode="nearest", align_corners=False)[:, 0] + IGNORED
    return torch.where(turned, 1 - pixels, pixels), list(moved.round().to(torch.uint8).cpu().numpy())


def begin(stages: nn.ModuleDict) -> None:
    """Fill the stages that are the detector's with its weights, as they ship."""
    with as_file(files(__package__) / "weights" / "det-nano.safetensors") as path:
        for name in HEAD:
            fill(stages[name], read_tensors(path, f"backbone.stages.{name}."), str(path))


def recipe(job: Job) -> list[Step]:
    """One step: what is behind d3, by the cross-entropy of pixels; the head is the detector's, as it ships."""
    backbone = job.modules["backbone"]
    assert isinstance(backbone, SegNano)
    begin(backbone.stages)
    learn = [*(stage for name, stage in backbone.stages.items() if name not in HEAD), backbone.segment]

    def segment(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        pixels, masks = vary_masks(batch.pixels, targets(batch.labels, batch.pixels), batch.rng)
        with torch.no_grad():
            features = backbone.head({"image": pixels}, HEAD[-1])
        return backbone.task_loss(features, HEAD[-1], masks)

    return [Step("pixels", learn, segment, min(40_000, 100 * len(job.dataset)), 3e-3, 64)]
