"""How a video ViT learns: cross-entropy, a third of the batches on a random subset of the frames.

The subsets teach it to recognise what arrives when an encoder drops frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.training import Batch, Job, Step

SUBSETS = (8, 4, 2, 1)


def recipe(job: Job) -> list[Step]:
    backbone = job.modules["backbone"]

    def loss(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        clip = backbone.head({"frames": batch.pixels}, "input")
        if batch.rng.random() < 1 / 3:
            order = torch.from_numpy(batch.rng.random(clip["index"].shape)).argsort(1)
            index = order[:, : batch.rng.choice(SUBSETS)].sort(1).values
            clip = {"frames": clip["frames"][torch.arange(len(index))[:, None], index], "index": index}
        logits = backbone.tail(clip, "input")
        top1 = (logits.argmax(1) == batch.labels).float().mean().item()
        return F.cross_entropy(logits, batch.labels, label_smoothing=0.1), {"top1": top1}

    samples = min(64_000, 40 * len(job.dataset))
    lr, batch = (1e-4, 8) if job.pretrained else (1e-3, 16)
    return [Step("backbone", [backbone], loss, samples=samples, lr=lr, batch=batch)]
