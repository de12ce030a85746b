"""How BottleNet++ learns, on the steps that all codecs at a cut share.

1. The backbone, if it comes without weights, by its own recipe.
2. The last batch norm begins at the mean and spread that each channel has, so that nothing need be learned of these;
   then the bottleneck alone learns to give back what it was given.
3. Bottleneck and backbone together, as ``semcodec.training.feature_steps.fine_tuning`` says, which AECNN's recipe
   uses too, so that the two compare.
4. The histograms of what is sent are counted.
"""

from __future__ import annotations

from typing import Any

import torch

from semcodec.errors import UsageError
from semcodec.interfaces import Features
from semcodec.training.feature_steps import backbone_first, batch_size, fine_tuning, match, observe, passes
from semcodec.training.loop import Job, Step

ALONE = 1
"""Passes over the data of the bottleneck alone."""


def recipe(job: Job) -> list[Step]:
    """The steps of the module's docstring. Raises UsageError for an empty data set."""
    if len(job.dataset) == 0:
        raise UsageError("there are no images to train the bottleneck on: give a data set that has some")
    encoder: Any = job.modules["encoder"]
    steps = [
        scale(job),
        match(job, [encoder], passes(job, ALONE), name="bottleneck", lr=5e-3, batch=batch_size(job)),
        *fine_tuning(job, [encoder]),
        observe(job, encoder.see, encoder.quantiser.finish, name="histograms"),
    ]
    return [*backbone_first(job), *steps]


def scale(job: Job) -> Step:
    """Mean and standard deviation of each channel, at which the decoder's batch norm begins."""
    encoder: Any = job.modules["encoder"]
    norm = encoder.expand_norm
    sums = torch.zeros(3, norm.num_features, dtype=torch.float64, device=norm.weight.device)

    def look(features: Features) -> None:
        x = features[encoder.name].double().transpose(0, 1).flatten(1)
        sums.add_(torch.stack([torch.ones_like(x).sum(1), x.sum(1), x.square().sum(1)]))

    def begin() -> None:
        count, total, squares = sums
        mean = total / count
        with torch.no_grad():
            norm.bias.copy_(mean)
            norm.weight.copy_((squares / count - mean.square()).clamp_min(1e-12).sqrt())

    return observe(job, look, begin, name="scale")
