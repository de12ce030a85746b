"""Feature recovery, equation 9: the pruned channels from all received ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semcodec.interfaces import Features, Partial, Recoverer
from semcodec.specs import FeatureSpec
from semcodec_plugins.aecnn.spec import feature_map

WIDTH = 64
"""Of the hidden layers, or as many as there are channels where these are fewer."""


class FeatureRecovery(nn.Module, Recoverer):
    """C / ratio received channels to the C (1 - 1 / ratio) others: a linear convolution, and what two layers add to it.

    It knows no Encoder: which channels were received is what ``present`` says of each sample. Where these are not
    whole channels in that number (an area is missing, say), what is missing stays as it is. Untrained it leaves
    zeros: it can be put into a network that has learned to do without it, and takes nothing away.
    """

    def __init__(self, features: FeatureSpec, *, ratio: int) -> None:
        super().__init__()
        self.name, channels, _, _ = feature_map(features, ratio)
        self.count = channels // ratio
        width = min(WIDTH, channels)
        self.linear = nn.Conv2d(self.count, channels - self.count, 3, padding=1)
        self.enter = nn.Conv2d(self.count, width, 3, padding=1)
        self.hidden = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, channels - self.count, 1)
        for last in (self.linear, self.leave):
            nn.init.zeros_(last.weight)
            assert last.bias is not None
            nn.init.zeros_(last.bias)

    def forward(self, received: Tensor) -> Tensor:
        """(B, C / ratio, H, W) to (B, C - C / ratio, H, W), in the order of the missing channels."""
        hidden = self.hidden(self.enter(received).relu()).relu()
        generated: Tensor = self.linear(received) + self.leave(hidden)
        return generated

    def recover(self, partial: Partial) -> Features:
        """Features with missing channels generated, (B, C, H, W)."""
        mask = partial.present.get(self.name)
        if mask is None:
            return partial.features
        x = partial.features[self.name]
        if mask.shape[-2:] == (1, 1) and (mask == mask[:1]).all() and int(mask[0].bool().sum()) == self.count:
            there = mask[0, :, 0, 0].bool()
            generated = self(x[:, there]).to(x.dtype)
            return {**partial.features, self.name: x.index_copy(1, there.logical_not().nonzero()[:, 0], generated)}
        whole = mask.expand_as(x[:, :, :1, :1] if mask.shape[-2:] == (1, 1) else x).bool().all(-1).all(-1)
        order = whole.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[..., None, None]  # received ones first
        received = x.take_along_dim(order[:, : self.count], 1)
        together = torch.cat([received, self(received).to(x.dtype)], 1)
        recovered = together.take_along_dim(order.argsort(1), 1)
        fits = (whole.sum(1) == self.count)[:, None, None, None]
        return {**partial.features, self.name: torch.where(fits & (mask == 0), recovered, x)}
