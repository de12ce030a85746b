"""How PCA is fitted, and how its 1x1 convolution learns.

1. The backbone, if it comes without weights, by its own recipe.
2. One pass over calibration images for the covariance of each tensor's channels, whose eigenvectors are the components;
   one for the ranges of these, one for the histograms of what is sent.
3. ``pca-adapt``: the convolution learns that what follows sees what it expects, at a later cut, then for the task; at a
   number of components that is drawn for each batch. The backbone stays as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from semcodec.interfaces import Features
from semcodec.training.feature_steps import around, backbone_first, end_to_end, match, observe
from semcodec.training.loop import Batch, Job, Step
from semcodec.training.principal_components import fit_components

MATCH, TASK = 2, 2
"""Passes over the data, at most ``MOST`` samples each."""
MOST = 100_000


def pca(job: Job) -> list[Step]:
    """The backbone, then the fit. Raises UsageError for an empty data set."""
    steps = fitting(job)
    return [*backbone_first(job), *steps]


def pca_adapt(job: Job) -> list[Step]:
    """The same, and the convolution. Raises UsageError for an empty data set."""
    encoder: Any = job.modules["encoder"]
    _, after = around(job.cuts, job.cut)
    later = () if after == job.cut else (after,)
    steps = [
        *fitting(job),
        match(job, [encoder.adapt], _passes(job, MATCH), to=later, name="adapt", lr=1e-3, weight_decay=0.0),
        end_to_end(job, [encoder.adapt], _passes(job, TASK), lr=3e-4, weight_decay=0.0),
    ]
    return [*backbone_first(job), *steps]


def _passes(job: Job, count: int) -> int:
    return min(MOST, count * len(job.dataset))


def fitting(job: Job) -> list[Step]:
    """Covariance, ranges, histograms. The last one's figures, which go into the card, are shares of variance.

    Raises UsageError for an empty data set.
    """
    encoder: Any = job.modules["encoder"]

    def ranges(features: Features) -> None:
        for name, basis in encoder.bases.items():
            basis.quantiser.see_range(basis.project(features[name], basis.rank))

    def finish_ranges() -> None:
        for basis in encoder.bases.values():
            basis.quantiser.finish_ranges()
            basis.even_steps()

    def cells(features: Features) -> None:
        for name, basis in encoder.bases.items():
            basis.quantiser.see(basis.project(features[name], basis.rank))

    def finish_cells() -> None:
        for basis in encoder.bases.values():
            basis.quantiser.finish()

    histograms = observe(job, cells, finish_cells, name="histograms")
    looked = histograms.loss

    def add_explanation(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return looked(batch)[0], encoder.explanation()

    return [
        fit_components(job, encoder.bases),
        observe(job, ranges, finish_ranges, name="ranges"),
        replace(histograms, loss=add_explanation),
    ]
