"""Single samples, each with a batch axis of one, put together where they can be; and some of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from semcodec.interfaces import Analysis, Features


def alike(samples: Sequence[Mapping[str, Tensor]]) -> list[list[int]]:
    """Rows of samples that have the same tensors of the same shapes, groups in the order they first appear."""
    groups: dict[Any, list[int]] = {}
    for i, sample in enumerate(samples):
        groups.setdefault(tuple((name, tuple(t.shape)) for name, t in sample.items()), []).append(i)
    return list(groups.values())


def stack(samples: Sequence[Mapping[str, Tensor]]) -> Features:
    """Samples that are alike, as one batch."""
    return {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}


def rows_of(features: Features, rows: Sequence[int]) -> Features:
    """Some samples of a batch."""
    return {name: t[list(rows)] for name, t in features.items()}


def analysis_rows(analysis: Analysis, rows: Sequence[int]) -> Analysis:
    prediction = None if analysis.prediction is None else analysis.prediction[list(rows)]
    return Analysis(rows_of(analysis.features, rows), rows_of(analysis.scores, rows), prediction)
