"""How the basis of feature-video-pca is fitted: one pass over calibration images, without labels or gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from semcodec.interfaces import Features
from semcodec.specs import PREFIX
from semcodec.training.feature_steps import backbone_first, observe
from semcodec.training.loop import Job, Step
from semcodec.training.principal_components import fit_components


def recipe(job: Job) -> list[Step]:
    """The backbone, if it comes without weights, then the fit.

    Raises UsageError for an empty data set.
    """
    encoder: Any = job.modules["encoder"]
    steps = [fit_components(job, encoder.bases, encoder.maps)]
    if encoder.prefix is not None:
        seen: list[Tensor] = []

        def see(features: Features) -> None:
            seen.append(features[PREFIX].double())

        def finish() -> None:
            encoder.prefix.copy_(torch.cat(seen).mean(0).half())

        steps.append(observe(job, see, finish, name="prefix"))
    return [*backbone_first(job), *steps]
