"""The transforms of one layer: channel and spatial reduction in integers, expansion, and how both start."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.interfaces import Int32
from semcodec.training.integer_layers import IntegerConv
from semcodec_plugins.layered.reduction import FEATURE_BITS, Fixed, reduced, window

_BLOCK_VALUES = 1 << 23  # of blocks that principal components are taken from


class Reduction(IntegerConv):
    """R of the slides: a strided convolution from C channels to a few, whose outputs are rounded and sent.

    Sides that the stride does not divide are padded by repeating their last value.
    """

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        kernel, padding = window(stride)
        super().__init__(channels, out_channels, kernel, stride, padding, inside=FEATURE_BITS)
        self.step = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) float to (B, out, h, w): the differentiable view."""
        return super().forward(pad(x, self.step))

    def integers(self, x: Fixed) -> Int32:
        """int32 (out, h, w): the same whatever the batch, threads and device. Raises UsageError for what is too large.

        Sums below 2 ** 52 are below 2 ** 30 once shifted.
        """
        return reduced(self.whole, x, self.step)


class Expansion(nn.ConvTranspose2d):
    """E of the slides: received integers back to C channels at the size of the features."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        kernel, padding = window(stride)
        super().__init__(channels, out_channels, kernel, stride, padding)

    def expand(self, y: Tensor, size: tuple[int, int]) -> Tensor:
        """y (B, C, h, w) to (B, out, *size)."""
        out: Tensor = self(y)
        return out[:, :, : size[0], : size[1]]


class Adaptation(nn.Module):
    """What a decoder adds to the sum of its expansions before the backbone goes on: nothing at first.

    width: channels inside; 0: half of the features'.
    """

    def __init__(self, channels: int, width: int = 0) -> None:
        super().__init__()
        width = width or max(8, channels // 2)
        last = nn.Conv2d(width, channels, 1)
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            last,
        )
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        added: Tensor = self.net(x)
        return x + added


def pad(x: Tensor, stride: int) -> Tensor:
    """Maps whose sides the stride divides, by repeating their last row and column."""
    height, width = x.shape[-2:]
    below, right = -height % stride, -width % stride
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


@torch.no_grad()
def start(reduction: Reduction, expansion: Expansion, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Set both to the principal components of the blocks of x (N, C, H, W), of which the mean is already gone.

    step: of quantisation, in the units of x. Returns what remains of x, and the standard deviations of the outputs.
    """
    stride, channels = reduction.step, x.shape[1]
    padded = pad(x, stride)
    blocks = F.unfold(padded, stride, stride=stride).transpose(1, 2).flatten(0, 1)  # (blocks, C * stride ** 2)
    every = -(-blocks.numel() // _BLOCK_VALUES)
    count = reduction.out_channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, _, found = torch.svd_lowrank(blocks[::every], q=min(count + 8, *blocks[::every].shape))
    basis = x.new_zeros(blocks.shape[1], count)
    basis[:, : found.shape[1]] = found[:, :count]
    outputs = blocks @ basis / step
    _, padding = window(stride)
    inner = slice(padding, padding + stride)
    for weight, values in ((reduction.weight, basis / step), (expansion.weight, basis * step)):
        weight.zero_()
        weight[:, :, inner, inner] = values.T.reshape(count, channels, stride, stride)
    for bias in (reduction.bias, expansion.bias):
        assert bias is not None
        bias.zero_()
    reduction.freeze()
    columns = (outputs * step @ basis.T).view(len(x), -1, blocks.shape[1]).transpose(1, 2)
    back = F.fold(columns, padded.shape[-2:], stride, stride=stride)
    return x - back[:, :, : x.shape[2], : x.shape[3]], outputs.std(0).clamp_min(1e-3)
