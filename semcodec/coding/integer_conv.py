"""Convolutional networks that are trained in float and run in integers, so that every machine gets the same result.

A prior that a network predicts must come out alike at both ends of a link, and float networks do not promise that: the
order of a sum depends on threads, batch size and device. Here weights and activations are integers on a fixed-point
grid. They are held in float64, where sums of integers are exact in any order as long as they stay below 2 ** 53, which
``IntegerConv.limit`` guarantees; what follows a sum is a shift with rounding, exact as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.errors import UsageError

WEIGHT_BITS = 12
"""Fraction bits of weights."""
ACTIVATION_BITS = 8
"""Fraction bits between the layers of a network."""
_EXACT = 1 << 52  # one bit below what float64 holds, for the half that rounds


def to_fixed(x: Tensor, bits: int) -> Tensor:
    """Floats to the nearest multiple of ``2 ** -bits``, as float64 integers. Element by element, so exact anywhere."""
    return torch.floor(x.double() * 2.0**bits + 0.5)


class IntegerConv(nn.Conv2d):
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
        super().__init__(channels, out_channels, kernel, stride, kernel // 2 if padding is None else padding)
        self.inside, self.out, self.shift = inside, out, inside + WEIGHT_BITS - out
        self.register_buffer("whole_weight", torch.zeros(self.weight.shape, dtype=torch.int32))
        self.register_buffer("whole_bias", torch.zeros(out_channels, dtype=torch.int64))
        self.freeze()

    @torch.no_grad()
    def freeze(self) -> None:
        """Take the integers from the float weights as they are now. Raises UsageError for what is no number."""
        assert self.bias is not None
        weight, bias = to_fixed(self.weight, WEIGHT_BITS), to_fixed(self.bias, self.inside + WEIGHT_BITS)
        if not (weight.abs().max() < 1 << 31 and bias.abs().max() < _EXACT):  # true of NaN too
            raise UsageError("the weights are too large for integers: train again at a smaller learning rate")
        self.whole_weight.copy_(weight)
        self.whole_bias.copy_(bias)

    @property
    def limit(self) -> int:
        """Largest magnitude of integer inputs from which every sum is exact."""
        rows = self.whole_weight.long().flatten(1).abs().sum(1)
        return (_EXACT - int(self.whole_bias.abs().max())) // max(1, int(rows.max()))

    def exact(self, x: Tensor) -> Tensor:
        """Integers (B, C, H, W) to integers, both held in float64. Raises UsageError beyond ``limit``."""
        self.check(float(x.abs().max()) if x.numel() else 0.0)
        padding = self.padding[0]
        assert isinstance(padding, int)
        return self.exact_of(unfold(x, self.kernel_size[0], self.stride[0], padding))

    def check(self, peak: float) -> None:
        """Raises UsageError for inputs of this magnitude beyond ``limit``, and for NaN."""
        if not peak <= self.limit:
            raise UsageError(
                f"values up to {peak / 2**self.inside:.3g} are too large to code: at most "
                f"{self.limit / 2**self.inside:.3g} are exact; look at the input or weights"
            )

    def exact_of(self, windows: Tensor) -> Tensor:
        """What ``exact`` gives of inputs that are checked and unfolded already: (B, C * kernel ** 2, h, w)."""
        sums = self.whole_weight.flatten(1).double() @ windows.flatten(2) + self.whole_bias.double()[:, None]
        return torch.floor(sums * 2.0**-self.shift + 0.5).view(*sums.shape[:2], *windows.shape[2:])


def unfold(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """(B, C, H, W) to the windows of a convolution with zero padding, (B, C * kernel ** 2, h, w).

    What a window is multiplied with is a matrix: a library's own convolution may go through transforms (Winograd, FFT)
    that are not exact.
    """
    windows = F.pad(x, [padding] * 4).unfold(2, kernel, stride).unfold(3, kernel, stride)
    return windows.permute(0, 1, 4, 5, 2, 3).flatten(1, 3)


class IntegerNet(nn.Module):
    """Convolutions, each followed by ``up``-fold sub-pixel upsampling, with ReLU between.

    Integers that are too large to stay exact are clamped to what is: such a network predicts, it transmits nothing.
    """

    def __init__(self, convs: Sequence[IntegerConv], up: int = 1) -> None:
        super().__init__()
        self.convs, self.up = nn.ModuleList(convs), up

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) float: the differentiable view."""
        for i, conv in enumerate(self.convs):
            x = F.pixel_shuffle(conv(F.relu(x) if i else x), self.up)
        return x

    def exact(self, x: Tensor) -> Tensor:
        """Integers (B, C, H, W) of any dtype, exact in float64, to int64."""
        x = x.double()
        for i, conv in enumerate(self.convs):
            assert isinstance(conv, IntegerConv)
            x = F.pixel_shuffle(conv.exact((F.relu(x) if i else x).clamp(-conv.limit, conv.limit)), self.up)
        return x.long()

    def freeze(self) -> None:
        for conv in self.convs:
            assert isinstance(conv, IntegerConv)
            conv.freeze()


def integer_net(channels: Sequence[int], kernel: int = 3, stride: int = 1, up: int = 1) -> IntegerNet:
    """A network of ``len(channels) - 1`` convolutions from integers to integers, finer between the layers."""
    last = len(channels) - 2
    return IntegerNet(
        [
            IntegerConv(
                inside,
                out * up * up,
                kernel,
                stride,
                inside=ACTIVATION_BITS if i else 0,
                out=0 if i == last else ACTIVATION_BITS,
            )
            for i, (inside, out) in enumerate(pairwise(channels))
        ],
        up,
    )
