"""The moving average of weights that learn, which is better than the last of them (Polyak and Juditsky, 1992)."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

DECAY = 0.999


class Average(nn.Module):
    """Of a module's parameters: updated by ``see``, put in their place by ``give``. Young ones forget sooner.

    One of a job's auxiliary modules, so that a run that was stopped goes on with it.
    """

    count: Tensor

    def __init__(self, of: nn.Module) -> None:
        super().__init__()
        self._of = [of]  # in a list, so as not to be part of what is saved
        self.kept = nn.ParameterList(deepcopy(p.detach()) for p in of.parameters()).requires_grad_(False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def see(self) -> None:
        """Count the weights as they are now."""
        self.count += 1
        count = int(self.count)
        share = 1 - min(DECAY, count / (10 + count))
        for kept, parameter in zip(self.kept, self._of[0].parameters(), strict=True):
            kept.lerp_(parameter.to(kept), share)

    @torch.no_grad()
    def give(self) -> None:
        """Give the module its average, from which the next one begins."""
        self.see()
        for kept, parameter in zip(self.kept, self._of[0].parameters(), strict=True):
            parameter.copy_(kept)
        self.count.zero_()
