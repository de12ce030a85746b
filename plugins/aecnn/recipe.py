"""AECNN's training, Algorithm 1, on the steps that all codecs at a cut share.

1. The backbone, if it comes without weights, by its own recipe.
2. Channel attention is inserted after the cut of a copy of the network, which is trained; the importance of each
   channel is taken from that copy (equation 8). The copy is left, and with it the module: what is pruned is the
   network itself.
3. The most important channels are kept, and the ranges and histograms of what is sent are taken.
4. The pruned network is fine-tuned, first to agree with the whole one at a later cut, then for the task. Feature
   recovery learns along, and before them alone: this plugin's README says what differs from the paper.
5. Ranges and histograms are taken again, as the kept channels have learned.

``bits`` that the spec leaves open are drawn for each batch, and one set of weights serves them all; a spec that names
them is trained for these alone.

What learns of the backbone is said in ``semcodec.training.feature_steps.fine_tuning``.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from semcodec.errors import UsageError
from semcodec.interfaces import Features
from semcodec.training.feature_steps import backbone_first, batch_size, fine_tuning, match, model_input, observe, passes
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.aecnn.attention import Importance, scaled

ATTENTION, ALONE = 0.1, 1
"""Passes over the data with channel attention in place, and of feature recovery alone."""


def recipe(job: Job) -> list[Step]:
    """The steps of the module's docstring. Raises UsageError for an empty data set."""
    if len(job.dataset) == 0:
        raise UsageError("there are no images to find the importance of channels on: give a data set that has some")
    recoverer = job.modules.get("recoverer")
    if "bits" in job.call:
        encoder: Any = job.modules["encoder"]
        encoder.trained_bits = (job.call["bits"],)
    steps = []
    if "encoder" not in job.ready:
        steps += [*attention(job), *calibration(job, "before")]
    if recoverer is None:
        steps += fine_tuning(job, [], more=ALONE)  # what recovery does not need: all are trained equally long
    else:
        steps.append(match(job, [recoverer], passes(job, ALONE), name="recovery", batch=batch_size(job)))
        steps += fine_tuning(job, [recoverer])
    return [*backbone_first(job, ("reference", "attended")), *steps, *calibration(job, "after")]


def attention(job: Job) -> list[Step]:
    """Algorithm 1 up to the pruning: train with the module in place, then equation 8 over the training set."""
    encoder: Any = job.modules["encoder"]
    network: Any = deepcopy(job.modules["backbone"])
    job.auxiliary["attended"] = network
    importance = Importance()

    def attend(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        features = network.head(model_input(batch), job.cut)
        loss, figures = network.task_loss({n: scaled(x) for n, x in features.items()}, job.cut, batch.labels)
        return loss, figures

    def weigh(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        importance.see(network.head(model_input(batch), job.cut)[encoder.name])
        return torch.zeros(()), {}

    def prune() -> None:
        encoder.prune(importance.mean())

    whole: list[nn.Module] = [network]
    return [
        Step("attention", whole, attend, passes(job, ATTENTION), 1e-4, statistics=False),
        Step("importance", (), weigh, passes(job, 1), 0.0, finish=prune),
    ]


def calibration(job: Job, when: str) -> list[Step]:
    """Ranges, then what falls into their cells."""
    encoder: Any = job.modules["encoder"]
    quantiser = encoder.quantiser

    def ranges(features: Features) -> None:
        quantiser.see_range(features[encoder.name][:, encoder.kept])

    def cells(features: Features) -> None:
        quantiser.see(features[encoder.name][:, encoder.kept])

    return [
        observe(job, ranges, quantiser.finish_ranges, name=f"ranges {when}"),
        observe(job, cells, quantiser.finish, name=f"histograms {when}"),
    ]
