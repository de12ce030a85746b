"""The embedded classifier: which digit of a scene is the main one, by what the detector's head gives at d3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from semcodec.errors import UsageError, WeightsError
from semcodec.interfaces import Backbone, Features
from semcodec.training.loop import Batch, Job, Step, top1
from semcodec_plugins.det_nano.nano import Residual, conv
from semcodec_plugins.det_nano.recipe import vary_boxes
from semcodec_plugins.det_nano.spec import HEAD, STAGES

NAMES = ["input", *HEAD]
"""Of the cuts, in order."""
MIDDLE, LAST = 96, 128
"""Channels of the stages behind the cuts."""


class ClsNano(nn.Module, Backbone):
    """classes: names of the classes. Input: {"image": (B, 3, 96, 96)} float32 in [0, 1]."""

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
        self.behind = nn.Sequential(
            conv(d3, MIDDLE, stride=2), Residual(MIDDLE), conv(MIDDLE, LAST, stride=2), Residual(LAST)
        )
        self.classify = nn.Linear(2 * LAST, len(classes))

    def head(self, x: Features, cut: str) -> Features:
        """To the map that crosses the cut; cuts are named by the stage before them."""
        return self.advance(x, "input", cut)

    def head_state(self, cut: str) -> Sequence[str]:
        """The stages before the cut."""
        return [f"stages.{name}." for name in NAMES[1 : NAMES.index(cut) + 1]]

    def tail_state(self, cut: str) -> Sequence[str]:
        """The stages after the cut, and the classification."""
        return [*(f"stages.{name}." for name in NAMES[NAMES.index(cut) + 1 :]), "behind.", "classify."]

    def advance(self, features: Features, cut: str, to: str) -> Features:
        """From the map that crosses the cut to the one that crosses a later one."""
        if NAMES.index(to) <= NAMES.index(cut):
            return features
        [x] = features.values()
        for name in NAMES[NAMES.index(cut) + 1 : NAMES.index(to) + 1]:
            x = self.stages[name](2 * x - 1 if name == "stem" else x)
        return {to: x}

    def tail(self, features: Features, cut: str) -> Tensor:
        """To logits (B, classes) float32."""
        x = self.behind(self.advance(features, cut, NAMES[-1])[NAMES[-1]]).float()
        logits: Tensor = self.classify(torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1))
        return logits

    def adapt_init(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The detector's stages up to d3, of a file of its weights, before a tail as it is. Raises WeightsError."""
        own = self.state_dict()
        beginnings = tuple(self.head_state(NAMES[-1]))
        given = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
        missing = [name for name in own if name.startswith(beginnings) and name not in given]
        if missing:
            raise WeightsError(f"--init takes weights of det-nano, and here is no {missing[0]}")
        return {name: given[name] if name.startswith(beginnings) else tensor for name, tensor in own.items()}


def recipe(job: Job) -> list[Step]:
    """One step: what is behind d3, by the cross-entropy; the head stays the detector's.

    Raises UsageError without its weights.
    """
    backbone = job.modules["backbone"]
    assert isinstance(backbone, ClsNano)
    if not job.pretrained:
        raise UsageError("cls-nano learns behind det-nano's head: give its weights, --init det-nano.safetensors")

    def classify(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        pixels, _ = vary_boxes(batch.pixels, [], batch.rng)
        with torch.no_grad():
            features = backbone.head({"image": pixels}, NAMES[-1])
        logits = backbone.tail(features, NAMES[-1])
        return nn.functional.cross_entropy(logits, batch.labels), {"top1": top1(logits, batch.labels)}

    samples = min(80_000, 100 * len(job.dataset))
    return [Step("classifier", [backbone.behind, backbone.classify], classify, samples, 3e-3, 64)]
