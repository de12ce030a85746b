"""The three networks: the latent's encoder, the segmentation and the synthesiser. All take frames one by one.

Sides are multiples of ``LATENT_STRIDE``; ``pad`` makes them so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec_plugins.deepisc.spec import CLASSES, LATENT, LATENT_STRIDE

WIDTH = 24


def pad(frames: Tensor) -> Tensor:
    """(n, 3, H, W) with its last row and column repeated up to multiples of ``LATENT_STRIDE``."""
    height, width = frames.shape[-2:]
    return F.pad(frames, (0, -width % LATENT_STRIDE, 0, -height % LATENT_STRIDE), mode="replicate")


def _conv(inside: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, out, 3, stride, 1), nn.ReLU())


def _fast(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)  # several times faster on CPUs


class LatentEncoder(nn.Module):
    """(n, 3, H, W) in [0, 1] to (n, LATENT, H / 8, W / 8) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(3, WIDTH, 2),
            _conv(WIDTH, WIDTH, 2),
            _conv(WIDTH, WIDTH, 2),
            nn.Conv2d(WIDTH, LATENT, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(_fast(2 * x - 1)))


class Segmentation(nn.Module):
    """(n, 3, H, W) in [0, 1] to logits of the classes, (n, CLASSES, H / 2, W / 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = _conv(3, WIDTH // 2, 2)
        self.coarse = nn.Sequential(_conv(WIDTH // 2, WIDTH, 2), _conv(WIDTH, WIDTH))
        self.out = nn.Sequential(_conv(WIDTH // 2 + WIDTH, WIDTH // 2), nn.Conv2d(WIDTH // 2, CLASSES, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(_fast(2 * x - 1))
        out: Tensor = self.out(torch.cat([fine, F.interpolate(self.coarse(fine), scale_factor=2)], 1))
        return out


class Synthesiser(nn.Module):
    """Latent (n, LATENT, H / 8, W / 8) and one-hot segmentation (n, CLASSES, H / 2, W / 2) to frames (n, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Sequential(_conv(LATENT, WIDTH), _conv(WIDTH, WIDTH))
        self.middle = _conv(WIDTH, WIDTH)
        self.fine = nn.Sequential(
            _conv(WIDTH + CLASSES, WIDTH), _conv(WIDTH, WIDTH), nn.Conv2d(WIDTH, 12, 3, padding=1)
        )

    def forward(self, latent: Tensor, segments: Tensor) -> Tensor:
        x = self.middle(_enlarge(self.coarse(_fast(latent))))
        return torch.sigmoid(F.pixel_shuffle(self.fine(torch.cat([_enlarge(x), segments], 1)), 2))


def _enlarge(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def one_hot(segments: Tensor) -> Tensor:
    """Classes (n, h, w) integers to (n, CLASSES, h, w) float32."""
    return _fast(F.one_hot(segments.long(), CLASSES).permute(0, 3, 1, 2).float())
