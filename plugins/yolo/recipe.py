"""How a detector learns: by its own loss, from boxes."""

from __future__ import annotations

from torch import Tensor

from semcodec.interfaces import Backbone
from semcodec.training.loop import Batch, Job, Step

EPOCHS = 100


def recipe(job: Job) -> list[Step]:
    """One step: the whole detector, by its own loss."""
    backbone = job.modules["backbone"]
    assert isinstance(backbone, Backbone)

    def detect(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return backbone.task_loss({"image": batch.pixels}, "input", batch.labels)

    return [Step("detector", [backbone], detect, EPOCHS * len(job.dataset), 1e-3, batch=16)]
