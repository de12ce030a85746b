"""The embedded model of embeddings: scenes with one main digit lie close together, by what is sent at d3."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.interfaces import Features, Labels
from semcodec.tasks.retrieval import pair_loss
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.det_nano.nano import Residual, Staged, conv
from semcodec_plugins.det_nano.recipe import vary_boxes
from semcodec_plugins.det_nano.segmenter import begin
from semcodec_plugins.det_nano.spec import HEAD, STAGES

WIDTH, LENGTH = 96, 64
"""Channels of the map behind d3, and numbers of an embedding."""


class EmbedNano(Staged):
    """Embeddings, from the detector's stages up to d3; classes are not looked at: see ``Staged``."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes, HEAD)
        self.behind = nn.Sequential(conv(STAGES[HEAD[-1]].channels, WIDTH, stride=2), Residual(WIDTH))
        self.weigh = nn.Conv2d(WIDTH, 1, 1)
        self.embed = nn.Linear(WIDTH, LENGTH)

    def tail(self, features: Features, cut: str) -> Tensor:
        """To embeddings (B, 64) float32 of length 1, of the mean of all cells as each weighs."""
        x = self.behind(self.last(features, cut))
        weights = self.weigh(x).flatten(2).softmax(2)
        return F.normalize(self.embed((x.flatten(2) * weights).sum(2)).float(), dim=1)

    def task_loss(self, features: Features, cut: str, labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """Of pairs of the batch: ``semcodec.tasks.retrieval.pair_loss``."""
        return pair_loss(self.tail(features, cut), labels)


def recipe(job: Job) -> list[Step]:
    """One step: what is behind d3, by pairs of a batch; the head is the detector's, as it ships."""
    backbone = job.modules["backbone"]
    assert isinstance(backbone, EmbedNano)
    begin(backbone.stages)

    def embed(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        pixels, _ = vary_boxes(batch.pixels, [], batch.rng)
        with torch.no_grad():
            features = backbone.head({"image": pixels}, HEAD[-1])
        return backbone.task_loss(features, HEAD[-1], batch.labels)

    learn = [backbone.behind, backbone.weigh, backbone.embed]
    return [Step("pairs", learn, embed, min(40_000, 100 * len(job.dataset)), 3e-3, 64)]
