"""Training on several processes, as ``torchrun`` starts them: what each takes of a batch, and what they agree on.

One process alone agrees with itself: every function here then gives back what it is given.
"""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from semcodec.errors import UsageError
from semcodec.pipeline.accelerator import Where


def begin() -> None:
    """Join the other processes where ``torchrun`` started this one beside others."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ and not distributed.is_initialized():
        distributed.init_process_group("gloo")
        atexit.register(distributed.destroy_process_group)


def own(device: Where) -> Where:
    """Of several GPUs, where ``device`` names none of them, the one of this process; else ``device``."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and count() > 1 else device


def count() -> int:
    """Processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def share_of(samples: int) -> slice:
    """This process's part of a batch. Raises UsageError for a batch of fewer samples than there are processes."""
    processes, rank = count(), 0 if count() == 1 else distributed.get_rank()
    if samples < processes:
        raise UsageError(f"a batch of {samples} samples is too small for {processes} processes; start fewer")
    return slice(rank * samples // processes, (rank + 1) * samples // processes)


def place_of(samples: int) -> tuple[int, slice]:
    """How many samples all parts of a batch have together, and which of them are the ``samples`` of this process."""
    if count() == 1:
        return samples, slice(0, samples)
    sizes = torch.zeros(count(), dtype=torch.int64)
    sizes[distributed.get_rank()] = samples
    distributed.all_reduce(sizes)
    before = int(sizes[: distributed.get_rank()].sum())
    return int(sizes.sum()), slice(before, before + samples)


def whole(part: Tensor) -> Tensor:
    """The samples (B, ...) of all processes, in order. No gradient passes through it."""
    if count() == 1:
        return part
    total, place = place_of(len(part))
    found = part.new_zeros(total, *part.shape[1:])
    found[place] = part.detach()
    distributed.all_reduce(found)
    return found


def sum_of(values: Tensor) -> Tensor:
    """The sum over processes, which takes no gradient there."""
    if count() == 1:
        return values
    found = values.detach().clone()
    distributed.all_reduce(found)
    return found


def variance(t: Tensor, axes: list[int]) -> Tensor:
    """Over these axes, the samples' among them, of all processes; each axis stays, with one element."""
    if count() == 1:
        return t.var(axes, keepdim=True)
    total = sum_of(torch.tensor(math.prod(t.shape[axis] for axis in axes), dtype=torch.float64))
    mean = sum_of(t.double().sum(axes, keepdim=True)) / total
    return (sum_of((t - mean).square().sum(axes, keepdim=True)) / (total - 1)).to(t)


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draws from [0, 1) on the CPU for samples (B, ...), the same for each as in a batch that is not divided."""
    total, place = place_of(shape[0])
    return torch.rand((total, *shape[1:]), generator=generator)[place]


def from_first(value: Any) -> Any:
    """What the first process has, in all of them."""
    if count() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


def any_of(flag: bool) -> bool:
    """Whether it is so in any process."""
    if count() == 1:
        return flag
    found = torch.tensor(float(flag))
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return bool(found)


def mean_of(values: Mapping[str, float], weight: float) -> dict[str, float]:
    """Of each value the sum over processes, each times its ``weight``, its share of the samples."""
    if count() == 1:
        return dict(values)
    found = torch.tensor(list(values.values()), dtype=torch.float64) * weight
    distributed.all_reduce(found)
    return dict(zip(values, found.tolist(), strict=True))


def join_gradients(parameters: Sequence[Tensor], weight: float) -> None:
    """Make each gradient that of the whole batch, ``weight`` being this process's share of its samples."""
    if count() == 1:
        return
    there = torch.tensor([float(p.grad is not None) for p in parameters])
    distributed.all_reduce(there, distributed.ReduceOp.MAX)
    learning = [p for p, used in zip(parameters, there.tolist(), strict=True) if used]
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    flat = torch.cat([part.flatten().float() for part in parts]) * weight
    distributed.all_reduce(flat)
    for p, part in zip(learning, torch.split(flat, [p.numel() for p in learning]), strict=True):
        p.grad = part.view_as(p).to(p.dtype)


def join_statistics(modules: Sequence[nn.Module]) -> None:
    """Make the statistics that batch norms collect the mean over processes."""
    if count() == 1:
        return
    for module in nn.ModuleList(modules).modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            for statistic in (module.running_mean, module.running_var):
                if statistic is not None:
                    distributed.all_reduce(statistic)
                    statistic /= count()
