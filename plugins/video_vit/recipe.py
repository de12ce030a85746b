"""How a video ViT learns: cross-entropy on whole clips, then half of the batches on random frames of them.

The second step teaches it to recognise what arrives when an encoder drops frames. It comes second because from
scratch nothing is learned from so little. A pretrained one first learns its classifier alone, so that what it has
learned elsewhere is not undone by the errors of a random one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.tensors import beside
from semcodec.training.loop import Batch, Job, Step, top1

SUBSETS = (8, 4, 2, 1)


def recipe(job: Job) -> list[Step]:
    """Whole clips, then fewer frames; before them the classifier alone where weights of another task are given."""
    backbone: Any = job.modules["backbone"]

    def recognise(batch: Batch, frames: int | None = None) -> tuple[Tensor, dict[str, float]]:
        clip = backbone.head({"frames": batch.pixels}, "input")
        if frames is not None:
            order = beside(batch.rng.random(clip["index"].shape), batch.pixels).argsort(1)
            index = order[:, :frames].sort(1).values
            rows = torch.arange(len(index), device=index.device)[:, None]
            clip = {"frames": clip["frames"][rows, index], "index": index}
        logits = backbone.tail(clip, "input")
        return F.cross_entropy(logits, batch.labels, label_smoothing=0.1), {"top1": top1(logits, batch.labels)}

    def recognise_fewer(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return recognise(batch, batch.rng.choice(SUBSETS) if batch.rng.random() < 0.5 else None)

    size = len(job.dataset)
    batch, lr = (8, 5e-5) if job.pretrained else (16, 1e-3)
    first = Step("classifier", [backbone.classifier], recognise, min(8_000, 8 * size), 1e-3, 16)
    return [
        *([first] if job.pretrained else []),
        Step("whole clips", [backbone], recognise, min(20_000, 16 * size), lr, batch),
        Step("fewer frames", [backbone], recognise_fewer, min(16_000, 8 * size), lr / 2, batch, statistics=False),
    ]
