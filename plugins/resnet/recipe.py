"""How the residual networks learn: a last stage on a given trunk, and the embedded one from random weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.errors import UsageError
from semcodec.training import Batch, Job, Step
from semcodec_plugins.timm_models.recipe import moved

TRUNK = "layer3"
MIXED = 0.5
"""Both parameters of the beta distribution that says how much of another sample's maps is mixed in."""


def last_stage(job: Job) -> list[Step]:
    """``layer4`` and the classifier; what comes before stays as it was given, its batch norms' statistics as well.

    The trunk's maps are mixed with those of other samples, as are the losses (manifold mixup: Verma et al., 2019):
    twenty pictures of a class are soon known by heart.
    """
    if not job.pretrained:
        raise UsageError("resnet50-caffe learns its last stage on a given trunk: --init PATH of a Caffe ResNet-50")
    backbone = job.modules["backbone"]

    def learn(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            maps = backbone.head({"image": fast(batch.pixels)}, TRUNK)["maps"]
            share = float(batch.rng.beta(MIXED, MIXED))
            other = torch.from_numpy(batch.rng.permutation(len(maps)))
            maps = maps.lerp(maps[other], share)
        logits = backbone.tail({"maps": maps}, TRUNK)
        own, others = (F.cross_entropy(logits, y, label_smoothing=0.1) for y in (batch.labels, batch.labels[other]))
        return own.lerp(others, share), {"top1": _top1(logits, batch)}

    model = backbone.model
    return [Step("last stage", [model.layer4, model.fc], learn, 16 * len(job.dataset), 1e-3, 64)]


def scenes(job: Job) -> list[Step]:
    """From labels alone."""
    backbone = job.modules["backbone"]

    def learn(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        logits = backbone.tail({"image": fast(moved(batch.pixels, batch.rng))}, "input")
        return F.cross_entropy(logits, batch.labels, label_smoothing=0.05), {"top1": _top1(logits, batch)}

    return [Step("labels", [backbone], learn, min(120_000, 12 * len(job.dataset)), 4e-3, 64)]


def fast(pixels: Tensor) -> Tensor:
    """The same with channels last in memory, as convolutions like it; their results then are, too."""
    return pixels.contiguous(memory_format=torch.channels_last)


def _top1(logits: Tensor, batch: Batch) -> float:
    return (logits.argmax(1) == batch.labels).float().mean().item()
