"""Convolutional networks in integers, so that every machine gets the same result; numpy alone.

A prior that a network predicts must come out alike at both ends of a link, and float networks do not promise that: the
order of a sum depends on threads, batch size and device. Here weights and activations are integers on a fixed-point
grid. They are held in float64, where sums of integers are exact in any order as long as they stay below 2 ** 53, which
``Convolution.limit`` guarantees; what follows a sum is a shift with rounding, exact as well.

``semcodec.training.integer_layers`` has the modules that are trained in float and hold the integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from semcodec.coding.counting import add_macs
from semcodec.errors import UsageError

WEIGHT_BITS = 12
"""Fraction bits of weights."""
ACTIVATION_BITS = 8
"""Fraction bits between the layers of a network."""
EXACT = 1 << 52
"""Sums stay below: one bit less than float64 holds, for the half that rounds."""

Whole = npt.NDArray[np.float64]
"""Integers held in float64."""


def to_grid(x: npt.NDArray[np.floating[Any]], bits: int) -> Whole:
    """Floats to the nearest multiple of ``2 ** -bits``, as integers. Element by element, so exact anywhere."""
    fixed: Whole = np.floor(x.astype(np.float64) * 2.0**bits + 0.5)
    return fixed


@dataclass(frozen=True)
class Convolution:
    """A convolution over two axes or three, with zero padding, a kernel of equal sides and one stride.

    weight: int32 (out, C, k, k) or (out, C, k, k, k). bias: int64 (out,). inside, out: fraction bits of its input and
    output: the integer v stands for v / 2 ** bits.
    """

    weight: npt.NDArray[np.int32]
    bias: npt.NDArray[np.int64]
    stride: int = 1
    padding: int = 0
    inside: int = 0
    out: int = 0

    @property
    def shift(self) -> int:
        """Bits that a sum is shifted by."""
        return self.inside + WEIGHT_BITS - self.out

    @cached_property
    def limit(self) -> int:
        """Largest magnitude of integer inputs from which every sum is exact."""
        rows = np.abs(self._matrix(np.int64)).sum(1)
        return (EXACT - int(np.abs(self.bias).max())) // max(1, int(rows.max()))

    def check(self, peak: float) -> None:
        """Raises UsageError for inputs of this magnitude beyond ``limit``, and for NaN."""
        if not peak <= self.limit:
            raise UsageError(
                f"values up to {peak / 2**self.inside:.3g} are too large to code: at most "
                f"{self.limit / 2**self.inside:.3g} are exact; look at the input or weights"
            )

    def exact(self, x: Whole) -> Whole:
        """Integers (B, C, [T,] H, W) to integers (B, out, [t,] h, w). Raises UsageError beyond ``limit``."""
        self.check(float(np.abs(x).max(initial=0)))
        return self.exact_of(unfold(x, self.weight.shape[2], self.stride, self.padding))

    def exact_of(self, windows: Whole) -> Whole:
        """What ``exact`` gives of inputs that are checked and unfolded already: (B, C * k ** axes, [t,] h, w)."""
        batch, rows, *places = windows.shape
        add_macs(self.weight.size * batch * prod(places))
        sums: Whole = self._matrix(np.float64) @ windows.reshape(batch, rows, -1)
        sums += self.bias.astype(np.float64)[:, None]
        sums *= 2.0**-self.shift
        sums += 0.5
        np.floor(sums, out=sums)
        return sums.reshape(batch, -1, *places)

    def _matrix(self, dtype: type[np.number[Any]]) -> npt.NDArray[Any]:
        return self.weight.reshape(len(self.weight), -1).astype(dtype)


def unfold(x: Whole, kernel: int, stride: int, padding: int) -> Whole:
    """(B, C, [T,] H, W) to the windows of a convolution with zero padding, (B, C * kernel ** axes, [t,] h, w).

    What a window is multiplied with is a matrix: a library's own convolution may go through transforms (Winograd, FFT)
    that are not exact.
    """
    batch, channels, *sides = x.shape
    # By hand: on the few places of one packet numpy's ``pad`` and windows take as long as everything else together.
    padded = np.zeros((batch, channels, *(side + 2 * padding for side in sides)), x.dtype)
    padded[(slice(None), slice(None), *(slice(padding, padding + side) for side in sides))] = x
    places = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
    sample, channel, *steps = padded.strides
    strides = sample, channel, *steps, *(stride * step for step in steps)
    windows = as_strided(padded, (batch, channels, *[kernel] * len(sides), *places), strides, writeable=False)
    return windows.reshape(batch, channels * kernel ** len(sides), *places)


@dataclass(frozen=True)
class Network:
    """Convolutions, each followed by ``up``-fold sub-pixel upsampling, by layer or of all, with ReLU between.

    Integers that are too large to stay exact are clamped to what is: such a network predicts, it transmits nothing.
    """

    layers: tuple[Convolution, ...]
    up: int | tuple[int, ...] = 1

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, npt.NDArray[Any]],
        prefix: str,
        layers: int,
        stride: int = 1,
        up: int | tuple[int, ...] = 1,
        out: int = 0,
    ) -> Network:
        """What ``integer_net`` made, of its integers in a state dict under names that begin with ``prefix``.

        out: fraction bits of what the last layer gives.
        """
        convolutions = []
        for i in range(layers):
            weight, bias = (state[f"{prefix}convs.{i}.whole_{part}"] for part in ("weight", "bias"))
            inside, bits = (ACTIVATION_BITS if i else 0), (out if i == layers - 1 else ACTIVATION_BITS)
            convolutions.append(Convolution(weight, bias, stride, weight.shape[2] // 2, inside, bits))
        return cls(tuple(convolutions), up)

    def exact(self, x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Integers (B, C, [T,] H, W) of any dtype, exact in float64, to int64."""
        x = x.astype(np.float64)
        for i, layer in enumerate(self.layers):
            x = np.maximum(x, 0) if i else x
            x = np.clip(x, -layer.limit, layer.limit)
            windows = unfold(x, layer.weight.shape[2], layer.stride, layer.padding)
            x = _shuffle(layer.exact_of(windows), up_of(self.up, i))
        return x.astype(np.int64)


def up_of(up: int | tuple[int, ...], layer: int) -> int:
    """Enlargement behind a layer, of what is given for all or for each."""
    return up if isinstance(up, int) else up[layer]


def shuffle_order(axes: int) -> tuple[int, ...]:
    """How the axes (B, C, up of each axis, size of each axis) of sub-pixel upsampling are put in order."""
    return (0, 1, *(axis for i in range(axes) for axis in (2 + axes + i, 2 + i)))


def _shuffle(x: Whole, up: int) -> Whole:
    """Sub-pixel upsampling: (B, C * up ** axes, [T,] H, W) to (B, C, [T * up,] H * up, W * up)."""
    if up == 1:
        return x
    batch, channels, *places = x.shape
    axes = len(places)
    split = x.reshape(batch, channels // up**axes, *[up] * axes, *places).transpose(shuffle_order(axes))
    return split.reshape(batch, channels // up**axes, *(up * side for side in places))


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from semcodec._moved import moved_name

        return moved_name(__name__, name)
