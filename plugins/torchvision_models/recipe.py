"""How a model for segmentation learns: by the cross-entropy of pixels, from masks."""

from __future__ import annotations

from torch import Tensor

from semcodec.errors import UsageError
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.torchvision_models.backbone import Segmenter


def recipe(job: Job) -> list[Step]:
    """One step: the whole model. Raises UsageError for a detector."""
    backbone = job.modules["backbone"]
    if not isinstance(backbone, Segmenter):
        raise UsageError("torchvision's detectors are not trained here: use them with published weights")

    def segment(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return backbone.task_loss({"image": batch.pixels}, "input", batch.labels)

    return [Step("pixels", [backbone], segment, 40 * len(job.dataset), 5e-4, batch=8)]
