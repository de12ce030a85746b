"""The principal components of one tensor's channels, and their quantiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semcodec.training.channel_quantiser import ChannelQuantiser
from semcodec_plugins.pca.covariance import Components


class Basis(nn.Module):
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
        self.quantiser = ChannelQuantiser(rank)

    def fit(self, found: Components) -> None:
        """At half precision, which files keep, so that what was fitted is what will be used."""
        self.mean.copy_(found.mean.half())
        self.vectors.copy_(found.vectors[: self.rank].half())
        self.explained.copy_(found.variances[: self.rank] / found.variances.sum().clamp_min(1e-30))

    def even_steps(self) -> None:
        """Give all components ranges of equal width, hence equal steps: what varies less costs fewer bits.

        That is reverse water-filling, the least squared error of a rate. To be called when ranges are known.
        """
        quantiser = self.quantiser
        half = (quantiser.high - quantiser.low).max() / 2
        middle = (quantiser.high + quantiser.low) / 2
        quantiser.low.copy_((middle - half).half())
        quantiser.high.copy_((middle + half).half())

    def project(self, x: Tensor, count: int) -> Tensor:
        """(B, C, H, W) to the first ``count`` components, (B, count, H, W) float64.

        In double precision, so that how sums are ordered, by threads or batch, is not seen in what is sent.
        """
        centred = x.double() - self.mean.double()[:, None, None]
        return torch.einsum("kc,bchw->bkhw", self.vectors[:count].double(), centred)

    def rebuild(self, y: Tensor) -> Tensor:
        """(B, k, H, W), the first k components, to (B, C, H, W); the others are taken as zero, their mean."""
        return torch.einsum("kc,bkhw->bchw", self.vectors[: y.shape[1]], y) + self.mean[:, None, None]
