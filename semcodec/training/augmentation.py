"""Images varied at random, for recipes of models that learn from few of them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.tensors import beside
from semcodec.training import processes


def vary(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Images (B, 3, H, W) in [0, 1], shifted, turned and scaled a little, colours exchanged or inverted; none mirrored.

    Each is drawn by itself, but for the order of colours, which is that of the batch.
    """
    count, place = processes.place_of(len(pixels))
    scale, angle = rng.uniform(0.75, 1.15, count), rng.uniform(-0.15, 0.15, count)
    rows = [
        [scale * np.cos(angle), -scale * np.sin(angle), rng.uniform(-0.25, 0.25, count)],
        [scale * np.sin(angle), scale * np.cos(angle), rng.uniform(-0.25, 0.25, count)],
    ]
    theta = beside(np.array(rows, np.float32), pixels).permute(2, 0, 1)[place]
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    pixels = pixels[:, beside(rng.permutation(3), pixels)]
    turned = beside(rng.random(count)[place] < 0.5, pixels)[:, None, None, None]
    return torch.where(turned, 1 - pixels, pixels)


def mosaic(pixels: Tensor, rng: np.random.Generator, share: float = 0.5) -> Tensor:
    """Images (B, 3, H, W), some of them four of the batch at half size, for detectors: objects small and many.

    share: of the images that are.
    """
    count, _, height, width = pixels.shape
    small = F.avg_pool2d(pixels, 2)
    four = [small[beside(rng.permutation(count), pixels)] for _ in range(4)]
    tiled = torch.cat([torch.cat(four[:2], 3), torch.cat(four[2:], 3)], 2)
    tiled = F.interpolate(tiled, size=(height, width)) if tiled.shape != pixels.shape else tiled
    chosen = beside(rng.random(count) < share, pixels)[:, None, None, None]
    return torch.where(chosen, tiled, pixels)


def cut_mix(pixels: Tensor, rng: np.random.Generator, share: float = 0.5) -> Tensor:
    """Images or clips (B, ..., H, W), some of them with a rectangle of another of the batch (Yun et al., 2019).

    It is the same in all frames. share: of the samples that are. Few become many to learn from where no label has to
    fit what is seen.
    """
    count, (height, width) = len(pixels), pixels.shape[-2:]
    others = pixels[torch.from_numpy(rng.permutation(count))]
    side = rng.uniform(0, 1, count) ** 0.5 * (rng.random(count) < share)
    middle = rng.random((count, 2))
    masks = []
    for axis, length in enumerate((height, width)):
        at = (np.arange(length) + 0.5) / length
        masks.append(np.abs(at - middle[:, axis : axis + 1]) < side[:, None] / 2)
    inside = torch.from_numpy(masks[0][:, :, None] & masks[1][:, None, :])
    inside = inside.view(count, *[1] * (pixels.dim() - 3), height, width)
    return torch.where(inside.to(pixels.device), others, pixels)


def window(pixels: Tensor, rng: np.random.Generator, side: int) -> Tensor:
    """Images (B, 3, H, W), the same square at random of each, as they are where that is larger."""
    top, left = (int(rng.integers(0, max(1, length - side + 1))) for length in pixels.shape[-2:])
    return pixels[..., top : top + side, left : left + side]
