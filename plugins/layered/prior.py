"""How integers of one layer are learned to be coded: under static tables, or a scale hyperprior in integers.

``coding`` has what codes them. For training both use CompressAI's densities (``learned`` extra), which ``begin`` makes
and which are no part of the weights: what is kept of them are integer tables. Without them nothing here needs
CompressAI.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from semcodec.coding import gaussian_tables
from semcodec.errors import PluginError, UsageError, first_line
from semcodec.training.integer_layers import integer_net
from semcodec_plugins.layered.coding import REACH, side_channels

COUNTED = 1 << 20
"""What a static table's counts sum to, about."""


def round_half_up(x: Tensor) -> Tensor:
    """Rounds as integer networks do."""
    return torch.floor(x + 0.5)


def straight_through(x: Tensor) -> Tensor:
    """Rounded, with the gradient of what is not."""
    return x + (round_half_up(x) - x).detach()


class Factorized(nn.Module):
    """One static table for each channel."""

    counts: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        away = torch.arange(-REACH, REACH + 1)
        self.register_buffer("counts", (COUNTED // (1 + away.square())).int().repeat(channels, 1))
        self._density: list[Any] = []  # in a list, so as not to be part of the weights

    def start(self, scales: Tensor) -> None:
        """What is known of the standard deviations (C,) before training: nothing here needs it."""

    def begin(self) -> nn.Module:
        """The density that is trained in the tables' place. Raises PluginError where CompressAI is missing."""
        density: nn.Module = _compressai().EntropyBottleneck(len(self.counts))
        self._density = [density]
        return density

    def bits(self, y: Tensor) -> Tensor:
        """Of y (B, C, h, w) with uniform noise for quantisation: (B,), differentiable."""
        return _bits(_require(self._density)(y, training=True)[1])

    @torch.no_grad()
    def freeze(self) -> None:
        """The tables of the density as it is now: its medians stay at zero, so that these are of whole numbers."""
        grid = torch.arange(-REACH, REACH + 1.0, device=self.counts.device).expand(1, len(self.counts), -1)
        density = _require(self._density)(grid.contiguous(), training=False)[1][0]
        self.counts.copy_((density / density.sum(1, keepdim=True) * COUNTED).round())

    def integers(self, writes: bool) -> list[str]:
        """Of the state dict, what ``read`` uses, or ``write``."""
        return ["counts"]

    def decoding(self) -> dict[str, Tensor]:
        """The weights that ``read`` uses."""
        return {"counts": self.counts}


class Hyper(nn.Module):
    """A scale hyperprior (Balle et al., 2018): z describes the scales of y and goes first, under static tables.

    Both networks are integer ones: the one that finds z so that equal features give equal bytes, the one that
    predicts scales from z so that both ends predict the same. Its output is the index of a Gaussian table.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden, side = max(8, channels), side_channels(channels)
        self.side = side
        self.analysis = integer_net((channels, hidden, side), stride=2)
        self.synthesis = integer_net((side, hidden, channels), up=2)
        self.z = Factorized(side)
        self._density: list[Any] = []
        self.start(torch.full((channels,), 1.0))

    @torch.no_grad()
    def start(self, scales: Tensor) -> None:
        """Predict these standard deviations (C,) whatever z is."""
        index = (scales.double() / gaussian_tables.LOWEST).log() / gaussian_tables.STEP
        bias = self.synthesis.layers[-1].bias
        assert bias is not None
        bias.copy_(index.clamp(0, gaussian_tables.SCALES - 1).float().repeat_interleave(4))
        self.synthesis.freeze()

    def begin(self) -> nn.Module:
        """The densities that are trained in the tables' place. Raises PluginError where CompressAI is missing."""
        self._density = [_compressai().GaussianConditional(None)]
        return nn.ModuleList([*self._density, self.z.begin()])

    def bits(self, y: Tensor) -> Tensor:
        """Of y (B, C, h, w), and of z, with uniform noise for quantisation: (B,), differentiable."""
        z: Tensor = self.analysis(y.abs())
        index: Tensor = self.synthesis(straight_through(z))[:, :, : y.shape[2], : y.shape[3]]
        scales = gaussian_tables.LOWEST * (gaussian_tables.STEP * index.clamp(0, gaussian_tables.SCALES - 1)).exp()
        return self.z.bits(z) + _bits(_require(self._density)(y, scales, training=True)[1])

    def freeze(self) -> None:
        """The integers of both networks and the tables of z, as they are now."""
        self.analysis.freeze()
        self.synthesis.freeze()
        self.z.freeze()

    def integers(self, writes: bool) -> list[str]:
        """Of the state dict, beginnings of the names of what ``read`` uses, or ``write``."""
        networks = {"synthesis": self.synthesis, **({"analysis": self.analysis} if writes else {})}
        convs = [f"{name}.convs.{i}.whole" for name, net in networks.items() for i in range(len(net.convs))]
        return [*convs, "z.counts"]

    def decoding(self) -> dict[str, Tensor]:
        """The weights that ``read`` uses."""
        whole = {n: t for n, t in self.synthesis.state_dict().items() if "whole" in n}
        return {**whole, "z": self.z.counts}


PRIORS: dict[str, type[Factorized] | type[Hyper]] = {"hyper": Hyper, "factorized": Factorized}


def _bits(likelihood: Tensor) -> Tensor:
    return -likelihood.log2().flatten(1).sum(1)


def _compressai() -> Any:
    try:
        with warnings.catch_warnings():  # of torch, that CompressAI uses what will be gone one day
            warnings.simplefilter("ignore")
            from compressai import entropy_models
    except ImportError as error:
        raise PluginError(
            f"training needs CompressAI ({first_line(error)}): pip install 'semcodec[learned]'"
        ) from error
    return entropy_models


def _require(density: list[Any]) -> Any:
    if not density:
        raise UsageError("the estimate of bits is for training: start it with the encoder's begin()")
    return density[0]
