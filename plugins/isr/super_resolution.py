"""Recoverers that make a small image large: a network, and plain interpolation."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.interfaces import Features, Partial, Recoverer
from semcodec.specs import FeatureSpec

WIDTH, BLOCKS = 32, 6


def bicubic(image: Tensor, scale: int) -> Tensor:
    """(B, 3, h, w) to (B, 3, scale * h, scale * w)."""
    return F.interpolate(image, scale_factor=scale, mode="bicubic")


class Residual(nn.Module):
    """A block of EDSR: no batch norm, which would shift colours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.relu(self.first(x)))
        return out


class SuperResolution(nn.Module, Recoverer):
    """Makes an image larger: bicubic interpolation, and the detail that it lacks by a network.

    Residual blocks at the low resolution and one sub-pixel convolution (EDSR: Lim et al., 2017; ESPCN: Shi et al.,
    2016). Untrained it is bicubic: the last convolution begins at zero. scale: times that each side becomes larger.
    """

    def __init__(self, features: FeatureSpec, *, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.enter = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.body = nn.Sequential(*(Residual(WIDTH) for _ in range(BLOCKS)))
        self.leave = nn.Conv2d(WIDTH, 3 * scale * scale, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] to (B, 3, scale * h, scale * w)."""
        x = self.enter(image - 0.5)
        detail = F.pixel_shuffle(self.leave(x + self.body(x)), self.scale)
        return bicubic(image, self.scale) + detail

    def recover(self, partial: Partial) -> Features:
        return {**partial.features, "image": self(partial.features["image"]).clamp(0, 1)}


class Bicubic(Recoverer):
    """Bicubic interpolation, within [0, 1]."""

    def __init__(self, features: FeatureSpec, *, scale: int, **params: Any) -> None:
        self.scale = scale

    def recover(self, partial: Partial) -> Features:
        return {**partial.features, "image": bicubic(partial.features["image"], self.scale).clamp(0, 1)}
