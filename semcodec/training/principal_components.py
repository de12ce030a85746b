"""Principal components of channels: fitted to any number of images in the memory of one batch, and projected to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semcodec.errors import UsageError
from semcodec.training.feature_steps import observe
from semcodec.training.loop import Job, Step
from semcodec.types import Features


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
        """Maps (B, C, ...). Raises UsageError for NaN or infinity."""
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


class PrincipalComponents(nn.Module):
    """mean: (C,). vectors: (rank, C), orthonormal rows. explained: (rank,), share of all variance, most first.

    Unfitted, component k is channel k.
    """

    mean: Tensor
    vectors: Tensor
    explained: Tensor

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("vectors", torch.eye(rank, channels))
        self.register_buffer("explained", torch.full((rank,), 1 / channels))

    def fit(self, found: Components) -> None:
        """At half precision, which files keep, so that what was fitted is what will be used."""
        self.mean.copy_(found.mean.half())
        self.vectors.copy_(found.vectors[: self.rank].half())
        self.explained.copy_(found.variances[: self.rank] / found.variances.sum().clamp_min(1e-30))

    def project(self, x: Tensor, count: int) -> Tensor:
        """(B, C, ...) to the first ``count`` components, (B, count, ...) float64.

        In double precision, so that how sums are ordered, by threads or batch, is not seen in what is sent.
        """
        centred = x.double() - self._mean_of(x).double()
        return torch.einsum("kc,bc...->bk...", self.vectors[:count].double(), centred)

    def rebuild(self, y: Tensor) -> Tensor:
        """(B, k, ...), the first k components, to (B, C, ...); the others are taken as zero, their mean."""
        return torch.einsum("kc,bk...->bc...", self.vectors[: y.shape[1]], y) + self._mean_of(y)

    def _mean_of(self, x: Tensor) -> Tensor:
        return self.mean.view(-1, *[1] * (x.ndim - 2))


def fit_components(
    job: Job, bases: Mapping[str, PrincipalComponents], maps: Callable[[Features], Features] = lambda features: features
) -> Step:
    """The step that fits each basis to the covariance of what ``maps`` makes of the features at the cut, by its name.

    Raises UsageError for an empty data set.
    """
    if not len(job.dataset):
        raise UsageError("there are no images to calibrate on: give a data set that has some")
    covariances = {name: Covariance(len(basis.mean)) for name, basis in bases.items()}

    def spread(features: Features) -> None:
        found = maps(features)
        for name, covariance in covariances.items():
            covariance.see(found[name])

    def fit() -> None:
        for name, basis in bases.items():
            basis.fit(covariances[name].components())

    return observe(job, spread, fit, name="covariance")
