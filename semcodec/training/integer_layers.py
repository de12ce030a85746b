"""Convolutions that are trained in float and run in integers: what ``semcodec.coding.integer_conv`` computes with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.coding.integer_conv import (
    ACTIVATION_BITS,
    EXACT,
    WEIGHT_BITS,
    Convolution,
    Network,
    shuffle_order,
    up_of,
)
from semcodec.errors import UsageError
from semcodec.tensors import as_array, beside


def to_fixed(x: Tensor, bits: int) -> Tensor:
    """Floats to the nearest multiple of ``2 ** -bits``, as float64 integers. Element by element, so exact anywhere."""
    return torch.floor(x.double() * 2.0**bits + 0.5)


class _IntegerConv(nn.modules.conv._ConvNd):
    """A convolution with zero padding. ``forward`` is float, for training; ``exact`` is its integer twin.

    inside, out: fraction bits of its input and output: the integer v stands for v / 2 ** bits.
    The integers are buffers that ``freeze`` makes of the float weights. They are what a stream is tied to: no cast of
    the model to another dtype moves them.
    """

    whole_weight: Tensor
    whole_bias: Tensor

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        padding: int | None = None,
        *,
        inside: int = 0,
        out: int = 0,
    ) -> None:
        padding = kernel // 2 if padding is None else padding
        super().__init__(channels, out_channels, kernel, stride, padding)  # type: ignore[call-arg, arg-type]
        self.inside, self.out = inside, out
        self.register_buffer("whole_weight", torch.zeros(self.weight.shape, dtype=torch.int32))
        self.register_buffer("whole_bias", torch.zeros(out_channels, dtype=torch.int64))
        self.freeze()

    @torch.no_grad()
    def freeze(self) -> None:
        """Take the integers from the float weights as they are now. Raises UsageError for what is no number."""
        assert self.bias is not None
        if self.weight.is_meta:  # made without data, which is loaded later or never
            return
        weight, bias = to_fixed(self.weight, WEIGHT_BITS), to_fixed(self.bias, self.inside + WEIGHT_BITS)
        if not (weight.abs().max() < 1 << 31 and bias.abs().max() < EXACT):  # true of NaN too
            raise UsageError("the weights are too large for integers: train again at a smaller learning rate")
        self.whole_weight.copy_(weight)
        self.whole_bias.copy_(bias)

    @property
    def whole(self) -> Convolution:
        """The integers, as they are now."""
        padding = self.padding[0]
        assert isinstance(padding, int)
        weight, bias = as_array(self.whole_weight), as_array(self.whole_bias)
        return Convolution(weight, bias, self.stride[0], padding, self.inside, self.out)

    @property
    def shift(self) -> int:
        """Bits that an exact sum is shifted by."""
        return self.inside + WEIGHT_BITS - self.out

    @property
    def limit(self) -> int:
        """Largest magnitude of integer inputs from which every sum is exact."""
        return self.whole.limit

    def exact(self, x: Tensor) -> Tensor:
        """Integers (B, C, H, W) to integers, both held in float64. Raises UsageError beyond ``limit``."""
        return beside(self.whole.exact(as_array(x).astype(np.float64)), x)


class IntegerConv(_IntegerConv, nn.Conv2d):
    """Over two axes."""


class Conv3d(nn.Conv3d):
    """In full precision always: oneDNN's bfloat16 convolution for AMX, of one time and channels that are no multiple of
    eight, gives NaN or other numbers (torch 2.14).
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):  # nothing that an exporter would have to trace
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class IntegerConv3d(_IntegerConv, Conv3d):
    """Over three axes."""


CONVS: dict[int, type[IntegerConv] | type[IntegerConv3d]] = {2: IntegerConv, 3: IntegerConv3d}


class IntegerNet(nn.Module):
    """Convolutions, each followed by ``up``-fold sub-pixel upsampling, with ReLU between; see ``Network``."""

    def __init__(self, convs: Sequence[IntegerConv | IntegerConv3d], up: int | tuple[int, ...] = 1) -> None:
        super().__init__()
        self.convs, self.up = nn.ModuleList(convs), up

    @property
    def layers(self) -> list[IntegerConv | IntegerConv3d]:
        """``convs``, by their type."""
        return [conv for conv in self.convs if isinstance(conv, IntegerConv | IntegerConv3d)]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, [T,] H, W) float: the differentiable view."""
        for i, conv in enumerate(self.layers):
            x = _shuffle(conv(F.relu(x) if i else x), up_of(self.up, i))
        return x

    def exact(self, x: Tensor) -> Tensor:
        """Integers (B, C, H, W) of any dtype, exact in float64, to int64."""
        network = Network(tuple(conv.whole for conv in self.layers), self.up)
        return beside(network.exact(as_array(x)), x)

    def freeze(self) -> None:
        """Take the integers from the float weights as they are now. Raises UsageError for what is no number."""
        for conv in self.layers:
            conv.freeze()


def _shuffle(x: Tensor, up: int) -> Tensor:
    """Sub-pixel upsampling over all axes behind the channels."""
    if up == 1 or x.dim() == 4:
        return F.pixel_shuffle(x, up)
    batch, channels, *places = x.shape
    axes = len(places)
    split = x.reshape(batch, channels // up**axes, *[up] * axes, *places).permute(shuffle_order(axes))
    return split.reshape(batch, channels // up**axes, *(up * side for side in places))


def integer_net(
    channels: Sequence[int],
    kernel: int = 3,
    stride: int = 1,
    up: int | tuple[int, ...] = 1,
    axes: int = 2,
    out_bits: int = 0,
) -> IntegerNet:
    """A network of ``len(channels) - 1`` convolutions from integers to integers, finer between the layers.

    out_bits: fraction bits of what it gives.
    """
    last = len(channels) - 2
    return IntegerNet(
        [
            CONVS[axes](
                inside,
                out * up_of(up, i) ** axes,
                kernel,
                stride,
                inside=ACTIVATION_BITS if i else 0,
                out=out_bits if i == last else ACTIVATION_BITS,
            )
            for i, (inside, out) in enumerate(pairwise(channels))
        ],
        up,
    )
