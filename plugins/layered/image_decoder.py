"""image-from-features: a convolutional network, the reverse of the backbone, that shows what was received."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.interfaces import Features

UP = 4
"""The picture has so many times the sides of the cut's first feature."""


class ImageFromFeatures(nn.Module):
    """Features of a cut to an RGB picture in about [0, 1]. Belongs to the server and to no stream.

    channels: of each feature, in the order of the cut.
    """

    def __init__(self, channels: Sequence[int], width: int = 32) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.coarse = nn.Sequential(_conv(width, width), _conv(width, width))
        self.middle = nn.Sequential(_conv(width, width // 2), _conv(width // 2, width // 2))
        self.fine = nn.Sequential(_conv(width // 2, width // 2), nn.Conv2d(width // 2, 3, 3, padding=1))

    def forward(self, features: Features) -> Tensor:
        """Feature maps (B, C, h, w) to (B, 3, UP * h, UP * w) of the first."""
        maps = [enter(x) for enter, x in zip(self.enter, features.values(), strict=True)]
        size = maps[0].shape[-2:]
        x = torch.stack([F.interpolate(m, size=size) for m in maps]).sum(0)
        x = F.interpolate(self.coarse(x), scale_factor=2.0)
        x = F.interpolate(self.middle(x), scale_factor=2.0)
        picture: Tensor = self.fine(x)
        return picture


def _conv(inside: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, out, 3, padding=1), nn.SiLU())
