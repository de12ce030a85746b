"""The device's reduction of feature maps, in integers: numpy alone, so the same with torch and without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semcodec.coding.integer_conv import Convolution, Whole, to_grid, unfold
from semcodec.coding.quantiser import check_finite
from semcodec.tensors import as_array

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.interfaces import Int32

FEATURE_BITS = 10
"""Fraction bits of features on their way into a reduction."""


def window(stride: int) -> tuple[int, int]:
    """Kernel and padding of a reduction: windows that overlap by half, none where nothing is reduced."""
    return (2 * stride, stride // 2) if stride > 1 else (1, 0)


class Fixed:
    """Features of one sample, (C, H, W), as integers on a grid, unfolded once for all reductions of a stride.

    Raises UsageError for what is not finite.
    """

    def __init__(self, x: Tensor | npt.NDArray[Any]) -> None:
        self.x = to_grid(check_finite(as_array(x)[None]).astype(np.float64), FEATURE_BITS)  # type: ignore[arg-type]
        self.peak = float(np.abs(self.x).max(initial=0))
        self._windows: dict[int, Whole] = {}

    def windows(self, stride: int) -> Whole:
        """What a reduction of this stride is multiplied with: (1, C * kernel ** 2, h, w)."""
        if stride not in self._windows:
            kernel, padding = window(stride)
            below, right = (-side % stride for side in self.x.shape[2:])
            padded = np.pad(self.x, ((0, 0), (0, 0), (0, below), (0, right)), "edge") if below or right else self.x
            self._windows[stride] = unfold(padded, kernel, stride, padding)
        return self._windows[stride]


def reduced(whole: Convolution, x: Fixed, stride: int) -> Int32:
    """What a reduction of this stride sends: int32 (out, h, w). Raises UsageError for what is too large."""
    whole.check(x.peak)
    found: Int32 = whole.exact_of(x.windows(stride))[0].astype(np.int32)
    return found
