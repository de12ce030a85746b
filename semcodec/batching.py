"""Single samples, each with a batch axis of one, put together where they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from semcodec.interfaces import Features


def alike(samples: Sequence[Mapping[str, Tensor]]) -> list[list[int]]:
    """Rows of samples that have the same tensors of the same shapes, groups in the order they first appear."""
    groups: dict[Any, list[int]] = {}
    for i, sample in enumerate(samples):
        groups.setdefault(tuple((name, tuple(t.shape)) for name, t in sample.items()), []).append(i)
    return list(groups.values())


def stack(samples: Sequence[Mapping[str, Tensor]]) -> Features:
    """Samples that are alike, as one batch."""
    return {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}
