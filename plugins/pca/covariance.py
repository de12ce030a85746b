"""Mean and covariance of channels over any number of images, in the memory of one batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from semcodec.errors import UsageError


@dataclass(frozen=True)
class Components:
    """mean: (C,). vectors: (C, C), a component a row, the first explains most. variances: (C,). All float64."""

    mean: Tensor
    vectors: Tensor
    variances: Tensor


class Covariance:
    """Every place of every map is one sample of C values.

    Batches are merged by the pairwise update of Chan, Golub and LeVeque (1979), which loses nothing to a mean that is
    large beside the spread.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self.scatter = torch.zeros(channels, channels, dtype=torch.float64)

    def see(self, x: Tensor) -> None:
        """Maps (B, C, H, W). Raises UsageError for NaN or infinity."""
        if not torch.isfinite(x).all():
            raise UsageError("the features hold NaN or infinity, which have no covariance: look at the weights")
        self.mean, self.scatter = self.mean.to(x.device), self.scatter.to(x.device)
        rows = x.detach().transpose(0, 1).flatten(1).double()
        count, mean = rows.shape[1], rows.mean(1)
        rows = rows - mean[:, None]
        apart, total = mean - self.mean, self.count + count
        self.scatter += rows @ rows.T + torch.outer(apart, apart) * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count = total

    def components(self) -> Components:
        """Raises UsageError where nothing was seen."""
        if not self.count:
            raise UsageError("there are no images to calibrate on: give a data set that has some")
        variances, vectors = torch.linalg.eigh(self.scatter / max(1, self.count - 1))
        vectors = vectors.T.flip(0)
        # The sign is free: the largest entry is positive, whatever the linear algebra gives.
        largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
        return Components(self.mean, vectors * largest.sign(), variances.flip(0).clamp_min(0))
