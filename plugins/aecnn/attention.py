"""The channel attention module, equations 5 to 8. It has no parameters: the network learns around it."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-5


def channel_attention(x: Tensor) -> Tensor:
    """Q of equation 7: (B, C, H, W) to weights (B, C) in (0, 1)."""
    x = x.float()
    return torch.sigmoid(_normalise(x.mean((2, 3))) + _normalise(x.amax((2, 3))))


def _normalise(pooled: Tensor) -> Tensor:
    """Equation 6: (B, C) by the mean and standard deviation over the channels of each sample."""
    mean = pooled.mean(1, keepdim=True)
    return (pooled - mean) / (pooled.var(1, keepdim=True, correction=0) + EPS).sqrt()


def scaled(x: Tensor) -> Tensor:
    """X weighed by its own attention, as the next layer sees it while the module is inserted."""
    return x * channel_attention(x)[..., None, None].to(x.dtype)


class Importance:
    """Equation 8: the mean of Q over all samples that it is shown."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count = 0

    def see(self, x: Tensor) -> None:
        """Add the samples of x, (B, C, H, W)."""
        self.total = self.total + channel_attention(x).sum(0, dtype=torch.float64)
        self.count += len(x)

    def mean(self) -> Tensor:
        """(C,) float32."""
        assert isinstance(self.total, Tensor)
        return (self.total / self.count).float()


def most_important(importance: Tensor, count: int) -> Tensor:
    """The ``count`` channels of greatest importance, int64, ascending; of equals the first."""
    order = importance.argsort(dim=0, descending=True, stable=True)
    return order[:count].sort().values
