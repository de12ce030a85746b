"""The last step before a cut, computing some of its channels alone.

Only that step can be narrowed: the layers before it feed all channels. It is the convolution that makes them, its norm,
activation and pooling; of a residual block also the projection, or the identity's channels. The norm is folded into a
copy of the weights, so values differ from the whole layer's in their last bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

LANES, GRAPH_LANES = 16, 8
"""Channels that a CPU's convolution computes at the price of one, in torch and in a graph."""


@dataclass(frozen=True)
class Image:
    """size: height and width. mean, std: (3, 1, 1), what pixels are normalised by."""

    size: tuple[int, int]
    mean: Tensor
    std: Tensor


class Normalise(nn.Module):
    """Pixels (B, 3, H, W) in [0, 1], with channels last in memory after."""

    shift: Tensor
    scale: Tensor

    def __init__(self, image: Image) -> None:
        super().__init__()
        self.register_buffer("shift", -image.mean / image.std)
        self.register_buffer("scale", 1 / image.std)

    def forward(self, x: Tensor) -> Tensor:
        """To what the model was trained on."""
        return torch.addcmul(self.shift, x, self.scale).contiguous(memory_format=torch.channels_last)


Block = BasicBlock | Bottleneck


@dataclass(frozen=True)
class Step(ABC):
    """links: how many links of the chain it stands for, from its end. convs: those that are narrowed."""

    links: int
    convs: tuple[nn.Conv2d, ...]

    @abstractmethod
    def kept(self, channels: Tensor, image: Image | None = None) -> nn.Module:
        """The step for these channels (K,) int64. Uses a snapshot of the current weights.

        image: where its input is the image itself, as the image comes: of pixels in [0, 1].
        """


@dataclass(frozen=True)
class BlockStep(Step):
    """A residual block."""

    block: Block

    def kept(self, channels: Tensor, image: Image | None = None) -> nn.Module:
        """The block, whose input is never the image."""
        return NarrowBlock(self.block, channels)


@dataclass(frozen=True)
class StemStep(Step):
    """A convolution, its norm, activation and pooling."""

    norm: nn.BatchNorm2d
    act: nn.Module
    pool: nn.Module

    def kept(self, channels: Tensor, image: Image | None = None) -> nn.Module:
        """As one convolution; of an image with what normalises it."""
        [conv] = self.convs
        narrow = fold(conv, self.norm, channels)
        if image is None:
            return nn.Sequential(narrow, self.pool, self.act)
        if len(channels) < LANES and isinstance(self.pool, nn.MaxPool2d) and Packed.fits(conv, self.pool, image):
            return Packed(narrow, self.pool, self.act, image)
        return nn.Sequential(Normalise(image), narrow, self.pool, self.act)


def last_step(modules: Sequence[nn.Module]) -> Step | None:
    """What can be narrowed at the end of a chain of ``modules``; None where nothing can."""
    last = modules[-1]
    if type(last) in (BasicBlock, Bottleneck):
        assert isinstance(last, Block)
        conv, norm, _ = _last(last)
        if last.se is not None or not isinstance(norm, nn.BatchNorm2d):
            return None
        shortcut = _projection(last)
        return BlockStep(1, (conv,) if shortcut is None else (conv, shortcut[1]), last)
    own = [(place, module) for place, module in enumerate(modules) if not isinstance(module, nn.Identity)]
    pool: nn.Module = nn.Identity()
    if isinstance(last, nn.MaxPool2d):
        own, pool = own[:-1], last
    if len(own) < 3:
        return None
    (place, conv_), (_, norm), (_, act) = own[-3:]
    if not (isinstance(conv_, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and isinstance(act, nn.ReLU)):
        return None
    whole = conv_.groups == 1 and conv_.padding_mode == "zeros"
    return StemStep(len(modules) - place, (conv_,), norm, act, pool) if whole else None


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d, channels: Tensor) -> nn.Conv2d:
    """Those output channels of a convolution and the batch norm after it, as one convolution."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    narrow = nn.Conv2d(
        conv.in_channels,
        len(channels),
        _pair(conv.kernel_size),
        _pair(conv.stride),
        conv.padding if isinstance(conv.padding, str) else _pair(conv.padding),
        _pair(conv.dilation),
        device="meta",
    )
    weight = (conv.weight * scale[:, None, None, None])[channels].detach()
    bias = (norm.bias - norm.running_mean * scale)[channels].detach()
    if conv.bias is not None:
        bias = bias + (conv.bias * scale)[channels].detach()
    narrow.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
    narrow.bias = nn.Parameter(bias, requires_grad=False)
    return narrow


def _pair(sides: Sequence[int]) -> tuple[int, int]:
    height, width = sides
    return height, width


def _last(block: Block) -> tuple[nn.Conv2d, nn.Module, nn.Module]:
    """The last convolution of a block, its norm, and the activation behind the sum."""
    if isinstance(block, Bottleneck):
        conv, norm, act = block.conv3, block.bn3, block.act3
    else:
        conv, norm, act = block.conv2, block.bn2, block.act2
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.Module) and isinstance(act, nn.Module)
    return conv, norm, act


def _projection(block: Block) -> tuple[list[nn.Module], nn.Conv2d, nn.BatchNorm2d] | None:
    """Of a block's shortcut: pooling, convolution and norm; None where it is the identity."""
    if block.downsample is None:
        return None
    assert isinstance(block.downsample, nn.Sequential)
    *pooling, conv, norm = block.downsample
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return pooling, conv, norm


class NarrowBlock(nn.Module):
    """A residual block of timm's, its last convolution and its shortcut for some channels alone."""

    channels: Tensor

    def __init__(self, block: Block, channels: Tensor) -> None:
        super().__init__()
        conv, norm, self.act = _last(block)
        assert isinstance(norm, nn.BatchNorm2d)
        names = ["conv1", "bn1", "act1", *(["conv2", "bn2", "act2"] if isinstance(block, Bottleneck) else []), "aa"]
        self.body = nn.Sequential(*(block.get_submodule(name) for name in names if getattr(block, name) is not None))
        self.last = fold(conv, norm, channels)
        self.projection = None
        if shortcut := _projection(block):
            pooling, conv, norm = shortcut
            self.projection = nn.Sequential(*pooling, fold(conv, norm, channels))
        self.register_buffer("channels", channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K, h, w)."""
        shortcut = self.projection(x) if self.projection else x.index_select(1, self.channels)
        out: Tensor = self.act(self.last(self.body(x)).add_(shortcut))
        return out


class Packed(nn.Module):
    """A stem of few channels and its 3x3 pooling, four neighbouring outputs of a channel computed as channels.

    Fewer channels than ``LANES`` cost a convolution as much as ``LANES``. So the kernel is laid into a larger one at
    each of 2x2 places, whose stride is twice as long: less than twice the products, on four times the lanes. Pooling
    then takes the greatest of these four and, of the neighbours before or behind, those that its window reaches.
    Normalising the pixels is part of the kernel and of what is added, which at the edges is less: padding comes after.
    An exported graph puts the four where they belong and pools as ever, which runtimes do in one pass each; at
    ``GRAPH_LANES`` or more it is the plain stem.
    """

    weight: Tensor
    added: Tensor

    def __init__(self, conv: nn.Conv2d, pool: nn.MaxPool2d, act: nn.Module, image: Image) -> None:
        super().__init__()
        assert conv.bias is not None and not isinstance(conv.padding, str)
        count, inputs, height, width = conv.weight.shape
        down, across = conv.stride
        weight = conv.weight.new_zeros(2, 2, count, inputs, height + down, width + across)
        for i in range(2):
            for j in range(2):
                weight[i, j, :, :, down * i : down * i + height, across * j : across * j + width] = conv.weight
        weight = (weight / image.std).flatten(0, 2).contiguous()
        self.stride, self.padding, self.count = (2 * down, 2 * across), conv.padding, count
        self.before, self.pool, self.act = pool.padding == 1, pool, act
        self.plain = nn.Sequential(Normalise(image), conv, pool, act)
        black = -image.mean.expand(1, inputs, *image.size)
        self.register_buffer("weight", weight)
        self.register_buffer("added", F.conv2d(black, weight, conv.bias.repeat(4), self.stride, self.padding))

    @staticmethod
    def fits(conv: nn.Conv2d, pool: nn.Module, image: Image) -> bool:
        """Whether a window of pooling reaches one output over its 2x2, before or behind, and none is left over."""
        if not isinstance(pool, nn.MaxPool2d) or (pool.kernel_size, pool.stride, pool.dilation) != (3, 2, 1):
            return False
        if isinstance(conv.padding, str):
            return False
        sides = zip(image.size, conv.kernel_size, conv.stride, conv.padding, strict=True)
        outputs = [(side + 2 * padding - kernel) // stride + 1 for side, kernel, stride, padding in sides]
        before, behind = pool.padding == 1 and not pool.ceil_mode, pool.padding == 0 and pool.ceil_mode
        return conv.dilation == (1, 1) and (before or behind) and not any(n % 2 for n in outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1]."""
        if torch.compiler.is_exporting():
            if self.count >= GRAPH_LANES:
                whole: Tensor = self.plain(x)
                return whole
            weight = self.weight.view(4, self.count, *self.weight.shape[1:]).transpose(0, 1)
            added = self.added.view(1, 4, self.count, *self.added.shape[2:]).transpose(1, 2)
            y = F.conv2d(x, weight.flatten(0, 1), None, self.stride, self.padding) + added.flatten(1, 2)
            pooled: Tensor = self.act(self.pool(F.pixel_shuffle(y, 2)))
            return pooled
        y = F.conv2d(x.contiguous(), self.weight, None, self.stride, self.padding).add_(self.added)
        y = self._greatest(y[:, : 2 * self.count], y[:, 2 * self.count :], 2)
        out: Tensor = self.act(self._greatest(y[:, : self.count], y[:, self.count :], 3))
        return out

    def _greatest(self, first: Tensor, second: Tensor, axis: int) -> Tensor:
        """Of pairs along an axis, and of the one before or behind each pair."""
        most = torch.maximum(first, second)
        size = most.shape[axis] - 1
        if self.before:
            inner, reached = most.narrow(axis, 1, size), second.narrow(axis, 0, size)
        else:
            inner, reached = most.narrow(axis, 0, size), first.narrow(axis, 1, size)
        torch.maximum(inner, reached, out=inner)
        return most


def operations(model: nn.Module, links: Sequence[str], shape: Sequence[int]) -> dict[nn.Module, int]:
    """Multiplications of one sample (C, H, W) in each convolution and linear layer of ``links``."""
    found: dict[nn.Module, int] = {}

    def count(layer: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        outputs = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        found[layer] = found.get(layer, 0) + made.numel() * layer.weight.numel() // outputs

    x = torch.empty(1, *shape, device="meta")
    with torch.no_grad():
        for name in links:
            module = model.get_submodule(name)
            layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
            hooks = [layer.register_forward_hook(count) for layer in layers]
            try:
                nothing = {n: t.to("meta") for n, t in (*module.named_parameters(), *module.named_buffers())}
                x = torch.func.functional_call(module, nothing, (x,))
            finally:
                for hook in hooks:
                    hook.remove()
    return found
