"""How the residual networks learn: a last stage on a given trunk, and the embedded one from random weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.errors import UsageError
from semcodec.training.augmentation import vary
from semcodec.training.loop import Batch, Job, Step, top1

TRUNK = "layer3"


def last_stage(job: Job) -> list[Step]:
    """``layer4`` and the classifier; what comes before stays as it was given, its batch norms' statistics as well."""
    if not job.pretrained:
        raise UsageError("resnet50-caffe learns its last stage on a given trunk: --init PATH of a Caffe ResNet-50")
    backbone: Any = job.modules["backbone"]

    def learn(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            maps = backbone.head({"image": batch.pixels}, TRUNK)["maps"]
        logits = backbone.tail({"maps": maps}, TRUNK)
        return F.cross_entropy(logits, batch.labels, label_smoothing=0.1), {"top1": top1(logits, batch.labels)}

    model = backbone.model
    return [Step("last stage", [model.layer4, model.fc], learn, 20 * len(job.dataset), 1e-3, 64)]


def scenes(job: Job) -> list[Step]:
    """From labels alone."""
    backbone: Any = job.modules["backbone"]

    def learn(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        logits = backbone.tail({"image": vary(batch.pixels, batch.rng)}, "input")
        return F.cross_entropy(logits, batch.labels, label_smoothing=0.05), {"top1": top1(logits, batch.labels)}

    return [Step("labels", [backbone], learn, min(120_000, 12 * len(job.dataset)), 4e-3, 64)]
