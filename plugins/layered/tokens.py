"""Learned codecs at a transformer's cut: reductions and mean-and-scale priors of tokens, and the decoder's networks.

``coding`` has how their integers become bytes, ``token_codec`` the Encoder that is made of these.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.coding import gaussian_tables
from semcodec.coding.integer_conv import ACTIVATION_BITS
from semcodec.training.integer_layers import Conv3d, integer_net
from semcodec.training.processes import uniform
from semcodec_plugins.layered import spec
from semcodec_plugins.layered.coding import ENLARGED, SCALE_STEPS
from semcodec_plugins.layered.prior import round_half_up, straight_through

CONV: dict[int, Any] = {2: nn.Conv2d, 3: Conv3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
HIDDEN = 128
"""Channels between the two layers of a reduction."""
GAINS = (0.5, 2.0)
"""Logarithms of what the coarsest and the finest level begin by multiplying with."""
LEAST = 1e-9
"""Of a probability in training: what is rarer goes through a table's escape."""


class TokenReduction(nn.Module):
    """Normalised tokens (B, D, [T,] H, W) to a few channels at fewer places, for one of several levels.

    y = gain_level * (network(x) + linear(x)), the network a strided convolution, GELU and a linear layer.
    """

    def __init__(self, dim: int, layer: spec.Layer, axes: int, levels: int) -> None:
        super().__init__()
        self.strides = steps = layer.strides(axes)
        kernel, padding = tuple(2 * step - 1 for step in steps), tuple(step - 1 for step in steps)
        self.net = nn.Sequential(
            CONV[axes](dim, HIDDEN, kernel, steps, padding), nn.GELU(), CONV[axes](HIDDEN, layer.channels, 1)
        )
        self.skip = CONV[axes](dim, layer.channels, steps, steps)
        self.gain = nn.Parameter(torch.linspace(*GAINS, levels)[:, None].repeat(1, layer.channels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        """To (B, C, [T,] h, w), of which whole numbers are sent."""
        y = self.shared(x)
        return y * _column(self.gain[level].exp(), y)

    def shared(self, x: Tensor) -> Tensor:
        """The same before the gain of a level."""
        lacking = [-side % stride for side, stride in zip(x.shape[2:], self.strides, strict=True)]
        if any(lacking):
            x = F.pad(x, [side for more in reversed(lacking) for side in (0, more)], mode="replicate")
        y: Tensor = self.net(x) + self.skip(x)
        return y


class MeanScale(nn.Module):
    """A mean-and-scale hyperprior (Minnen et al., 2018) of y at one of several levels.

    z, which describes y at half as many places along each axis, is found in float: the server reads it. What is
    predicted from it, the mean of each integer and the index of its Gaussian table, comes of an integer network, see
    ``coding.TokenCoding``. z has a Gaussian table for each level and channel.
    """

    whole_offsets: Tensor
    whole_scales: Tensor

    def __init__(self, channels: int, axes: int, levels: int) -> None:
        super().__init__()
        side, hidden = spec.token_side_channels(channels), 64 if axes == 2 else 32
        self.analysis = nn.Sequential(CONV[axes](channels, hidden, 3, 2, 1), nn.GELU(), CONV[axes](hidden, side, 1))
        self.synthesis = integer_net((side, hidden, 2 * channels), up=ENLARGED, axes=axes, out_bits=ACTIVATION_BITS)
        one = -torch.tensor(gaussian_tables.LOWEST).log() / gaussian_tables.STEP  # index of the scale 1
        start = torch.cat([torch.zeros(channels), (one / SCALE_STEPS).expand(channels)])
        self.offsets = nn.Parameter(start.repeat(levels, 1))
        self.scales = nn.Parameter((one / SCALE_STEPS).repeat(levels, side))
        self.register_buffer("whole_offsets", torch.zeros(levels, 2 * channels, dtype=torch.int64))
        self.register_buffer("whole_scales", torch.zeros(levels, side, dtype=torch.int32))
        self.freeze()

    @torch.no_grad()
    def freeze(self) -> None:
        """Take the integers, which are what codes, from the weights as they are now."""
        if self.offsets.is_meta:  # made without data, which is loaded later or never
            return
        self.synthesis.freeze()
        self.whole_offsets.copy_(round_half_up(self.offsets.double() * 2.0**ACTIVATION_BITS))
        index = round_half_up(self.scales.double() * SCALE_STEPS)
        self.whole_scales.copy_(index.clamp(0, gaussian_tables.SCALES - 1))

    def forward(self, y: Tensor, level: int, noise: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """y (B, C, [T,] h, w) float32 as the server has it, rounded straight-through, and its bits (B,).

        noise: what draws the uniform noise that bits are of in the place of rounding; None: they are of whole numbers.
        """
        z: Tensor = self.analysis(y).float()
        found = self.synthesis(straight_through(z))[:, :, *(slice(side) for side in y.shape[2:])].float()
        means, scales = (found + _column(self.offsets[level], found)).chunk(2, 1)
        rest = y - means
        bits = _bits(_noisy(rest, noise), _deviation(scales))
        bits = bits + _bits(_noisy(z, noise), _deviation(_column(self.scales[level], z).expand_as(z)))
        return means + straight_through(rest), bits


class Block(nn.Module):
    """Pre-norm transformer block whose two branches begin at a tenth (Touvron et al., 2021): (B, N, D) to the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = next(count for count in range(max(1, dim // 32), 0, -1) if dim % count == 0)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.scale1 = nn.Parameter(torch.full((dim,), 0.1))
        self.scale2 = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to the same."""
        batch, count, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, count, dim)
        x = x + self.scale1 * self.proj(seen)
        out: Tensor = x + self.scale2 * self.mlp(self.norm2(x))
        return out


class TokenDecoder(nn.Module):
    """Received integers of every layer back to tokens: expansions, summed, and blocks that fill what was not sent.

    Prefix tokens are learned, as are positions; the class token looks at what arrived.
    """

    def __init__(
        self, dim: int, grid: tuple[int, ...], prefix: int, stack: tuple[spec.Layer, ...], levels: int, blocks: int
    ) -> None:
        super().__init__()
        axes, self.grid = len(grid), grid
        steps = [layer.strides(axes) for layer in stack]
        self.expansions = nn.ModuleList(
            TRANSPOSED[axes](layer.channels, dim, step, step) for layer, step in zip(stack, steps, strict=True)
        )
        self.gains = nn.ParameterList(
            -torch.linspace(*GAINS, levels)[:, None].repeat(1, layer.channels) for layer in stack
        )
        self.prefix = nn.Parameter(torch.zeros(1, prefix, dim))
        self.positions = nn.Parameter(torch.zeros(1, prefix + torch.Size(grid).numel(), dim))
        self.blocks = nn.ModuleList(Block(dim) for _ in range(blocks))
        self.out = nn.Linear(dim, dim)

    def forward(self, layers: list[Tensor], level: int) -> Tensor:
        """y (B, C, [T,] h, w) of as many layers as there are, to normalised tokens (B, prefix + N, D)."""
        sums = torch.zeros(())
        for y, gain, expansion in zip(layers, self.gains, self.expansions, strict=False):
            wide = expansion(y * _column(gain[level].exp(), y))
            sums = sums + wide[:, :, *(slice(side) for side in self.grid)]
        x = torch.cat([self.prefix.expand(len(sums), -1, -1), sums.flatten(2).transpose(1, 2)], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        found: Tensor = x + self.out(x)
        return found


def _column(values: Tensor, of: Tensor) -> Tensor:
    """Values (C,) along the channels of (B, C, ...)."""
    return values.view(-1, *[1] * (of.dim() - 2))


def _noisy(x: Tensor, noise: torch.Generator | None) -> Tensor:
    return straight_through(x) if noise is None else x + uniform(x.shape, noise).to(x) - 0.5


def _deviation(units: Tensor) -> Tensor:
    """Standard deviations, of what predicts the index of a table over ``SCALE_STEPS``."""
    index = (units * SCALE_STEPS).clamp(0, gaussian_tables.SCALES - 1)
    return gaussian_tables.LOWEST * (gaussian_tables.STEP * index).exp()


def _bits(values: Tensor, deviations: Tensor) -> Tensor:
    """Of a unit interval around each value under zero-mean Gaussians, summed over a sample: (B,)."""
    away = values.abs()
    upper, lower = (torch.special.ndtr((half - away) / deviations) for half in (0.5, -0.5))
    found: Tensor = -(upper - lower).clamp_min(LEAST).log2().flatten(1).sum(1)
    return found
