"""The embedded model that reconstructs the picture, by what is sent at d3."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.interfaces import Features, Labels
from semcodec.tasks.reconstruction import squared_error, targets
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.det_nano.nano import Residual, Staged, conv
from semcodec_plugins.det_nano.segmenter import begin
from semcodec_plugins.det_nano.spec import HEAD, STAGES

SUBPIXELS = STAGES[HEAD[-1]].stride // 2
"""Pixels along a side that a place of the finer map stands for."""
WIDTHS = (48, 32)
"""Channels of the maps at an eighth and a quarter of the picture's side."""


class DrawNano(Staged):
    """The picture, from the detector's stages up to d3; classes are not looked at: see ``Staged``.

    Its last convolution gives all pixels of a place at once (sub-pixel convolution: Shi et al., CVPR 2016).
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes, HEAD)
        coarse, fine = WIDTHS
        self.coarse = nn.Sequential(conv(STAGES[HEAD[-1]].channels, coarse), conv(coarse, fine))
        self.fine = nn.Sequential(Residual(fine), nn.Conv2d(fine, 3 * SUBPIXELS**2, 3, padding=1))

    def tail(self, features: Features, cut: str) -> Tensor:
        """To pixels (B, 3, 96, 96) float32 in [0, 1]."""
        x = self.coarse(self.last(features, cut))
        pixels = F.pixel_shuffle(self.fine(F.interpolate(x, scale_factor=2.0)), SUBPIXELS)
        return pixels.float().sigmoid()

    def task_loss(self, features: Features, cut: str, labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """The squared error: ``semcodec.tasks.reconstruction.squared_error``."""
        return squared_error(self.tail(features, cut), targets(labels, next(iter(features.values()))))


def recipe(job: Job) -> list[Step]:
    """One step: what is behind d3, by the squared error; the head is the detector's, as it ships."""
    backbone = job.modules["backbone"]
    assert isinstance(backbone, DrawNano)
    begin(backbone.stages)

    def draw(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            features = backbone.head({"image": batch.pixels}, HEAD[-1])
        return squared_error(backbone.tail(features, HEAD[-1]), batch.pixels)

    return [Step("picture", [backbone.coarse, backbone.fine], draw, min(40_000, 100 * len(job.dataset)), 3e-3, 64)]
