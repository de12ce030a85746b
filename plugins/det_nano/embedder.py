"""The embedded model of embeddings: scenes with one main digit lie close together, by what is sent at d3."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.interfaces import Backbone, Features, Labels
from semcodec.tasks.retrieval import pair_loss
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.det_nano.nano import Residual, conv
from semcodec_plugins.det_nano.recipe import vary_boxes
from semcodec_plugins.det_nano.segmenter import begin
from semcodec_plugins.det_nano.spec import HEAD, STAGES

CUTS = ("input", *HEAD)
WIDTH, LENGTH = 96, 64
"""Channels of the map behind d3, and numbers of an embedding."""


class EmbedNano(nn.Module, Backbone):
    """classes: names of the classes, which are not looked at. Input: {"image": (B, 3, 96, 96)} float32 in [0, 1]."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = list(classes)
        stem, d2, d3 = (STAGES[name].channels for name in HEAD)
        self.stages = nn.ModuleDict(
            {
                "stem": conv(3, stem, stride=2),
                "d2": nn.Sequential(conv(stem, d2, stride=2), Residual(d2)),
                "d3": nn.Sequential(conv(d2, d3, stride=2), Residual(d3)),
            }
        )
        self.behind = nn.Sequential(conv(d3, WIDTH, stride=2), Residual(WIDTH))
        self.weigh = nn.Conv2d(WIDTH, 1, 1)
        self.embed = nn.Linear(WIDTH, LENGTH)

    def head(self, x: Features, cut: str) -> Features:
        """To the map that crosses the cut; cuts are named by the stage before them."""
        return self.advance(x, "input", cut)

    def head_state(self, cut: str) -> Sequence[str]:
        """The stages before the cut."""
        return [f"stages.{name}." for name in CUTS[1 : CUTS.index(cut) + 1]]

    def tail_state(self, cut: str) -> Sequence[str]:
        """The stages after the cut, and the embedding."""
        later = [f"stages.{name}." for name in CUTS[CUTS.index(cut) + 1 :]]
        return [*later, "behind.", "weigh.", "embed."]

    def advance(self, features: Features, cut: str, to: str) -> Features:
        """From the map that crosses the cut to the one that crosses a later one."""
        maps = dict(features)
        for name in CUTS[CUTS.index(cut) + 1 : CUTS.index(to) + 1]:
            [x] = maps.values()
            maps = {name: self.stages[name](2 * x - 1 if name == "stem" else x)}
        return maps

    def tail(self, features: Features, cut: str) -> Tensor:
        """To embeddings (B, 64) float32 of length 1, of the mean of all cells as each weighs."""
        x = self.behind(self.advance(features, cut, CUTS[-1])[CUTS[-1]])
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
            features = backbone.head({"image": pixels}, CUTS[-1])
        return backbone.task_loss(features, CUTS[-1], batch.labels)

    learn = [backbone.behind, backbone.weigh, backbone.embed]
    return [Step("pairs", learn, embed, min(40_000, 100 * len(job.dataset)), 3e-3, 64)]
