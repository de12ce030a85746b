"""A small model for pixels, so that something works without published weights.

1. The backbone, if it comes without weights, by its own recipe.
2. ``pixels``, without labels: L = rate + lambda * 255^2 * mean squared error, as CompressAI trains (its lambdas, by
   quality), on windows drawn at random. Static tables are made of the density at the end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from semcodec.errors import UsageError
from semcodec.training.augmentation import window
from semcodec.training.feature_steps import backbone_first, model_input
from semcodec.training.loop import Batch, Job, Step

LAMBDA = (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18)
"""By quality, beside the squared error of 8-bit values."""
PASSES, MOST = 40, 60_000
BATCH = 8
WINDOW = 128
"""Pixels along each side of what is looked at in larger inputs."""


def recipe(job: Job) -> list[Step]:
    """The steps of the module's docstring. Raises UsageError for an empty data set."""
    encoder: Any = job.modules["encoder"]
    if not len(job.dataset):
        raise UsageError("there are no images to train on: give a data set that has some")
    trade = LAMBDA[encoder.quality - 1]

    def loss(b: Batch) -> tuple[Tensor, dict[str, float]]:
        image = model_input(replace(b, pixels=window(b.pixels, b.rng, WINDOW)))["image"]
        [(partial, bits)] = encoder.noisy({"image": image}, b.rng)
        error = (partial.features["image"] - image).square().mean()
        bpp = bits.mean() / (image.shape[-1] * image.shape[-2])
        return bpp + trade * 255**2 * error, {"mse": error.item(), "bpp": bpp.item()}

    samples = min(MOST, PASSES * len(job.dataset))
    learning = job.trainable_parts
    pixels = Step("pixels", learning.modules, loss, samples, 1e-3, BATCH, 0.0, finish=learning.settle)
    return [*backbone_first(job), pixels]
