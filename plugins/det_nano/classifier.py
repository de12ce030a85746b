"""The embedded classifier: which digit of a scene is the main one, by what the detector's head gives at d3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from semcodec.errors import UsageError, WeightsError
from semcodec.interfaces import Features
from semcodec.training.loop import Batch, Job, Step, top1
from semcodec_plugins.det_nano.nano import Residual, Staged, conv
from semcodec_plugins.det_nano.recipe import vary_boxes
from semcodec_plugins.det_nano.spec import HEAD, STAGES

MIDDLE, LAST = 96, 128
"""Channels of the stages behind the cuts."""


class ClsNano(Staged):
    """The digit of the main object, from the detector's stages up to d3: see ``Staged``."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes, HEAD)
        self.behind = nn.Sequential(
            conv(STAGES[HEAD[-1]].channels, MIDDLE, stride=2),
            Residual(MIDDLE),
            conv(MIDDLE, LAST, stride=2),
            Residual(LAST),
        )
        self.classify = nn.Linear(2 * LAST, len(classes))

    def tail(self, features: Features, cut: str) -> Tensor:
        """To logits (B, classes) float32."""
        x = self.behind(self.last(features, cut)).float()
        logits: Tensor = self.classify(torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1))
        return logits

    def adapt_init(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The detector's stages up to d3, of a file of its weights, before a tail as it is. Raises WeightsError."""
        own = self.state_dict()
        beginnings = tuple(self.head_state(HEAD[-1]))
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
            features = backbone.head({"image": pixels}, HEAD[-1])
        logits = backbone.tail(features, HEAD[-1])
        return nn.functional.cross_entropy(logits, batch.labels), {"top1": top1(logits, batch.labels)}

    samples = min(80_000, 100 * len(job.dataset))
    return [Step("classifier", [backbone.behind, backbone.classify], classify, samples, 3e-3, 64)]
