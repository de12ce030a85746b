"""What each stage costs: multiply-accumulates and parameters, counted while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from semcodec.pipeline.timing import Clock


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations of scaled dot-product attention, by shapes (..., tokens, width)."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


# The kernel that CPUs take, which the counter of older torch does not know.
CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


class Meter(Clock):
    """A clock that also counts.

    macs: by stage, multiply-accumulates of matrix products, convolutions and attention.
    parameters: by stage, elements of the parameters that took part.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: dict[str, int] = {}
        self._used: dict[str, dict[int, int]] = {}

    @property
    def parameters(self) -> dict[str, int]:
        """By stage, elements of the parameters that took part."""
        return {stage: sum(sizes.values()) for stage, sizes in self._used.items()}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        flops = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
        with super().__call__(stage), _Used(self._used.setdefault(stage, {})), flops:
            yield
        self.macs[stage] = self.macs.get(stage, 0) + flops.get_total_flops() // 2


class _Used(TorchFunctionMode):
    """Notes every parameter that a torch function is called with, once."""

    def __init__(self, sizes: dict[int, int]) -> None:
        super().__init__()
        self.sizes = sizes

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, nn.Parameter):
                self.sizes[id(leaf)] = leaf.numel()
        return func(*args, **(kwargs or {}))
