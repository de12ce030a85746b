"""How many bits a plain histogram of the values takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def order0(pixels: npt.NDArray[np.uint8]) -> list[float]:
    """Entropy in bit of each channel of uint8 pixels (..., C), every value by itself: what a plain histogram allows."""
    entropies = []
    for channel in range(pixels.shape[-1]):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        p = counts[counts > 0] / counts.sum()
        entropies.append(round(float(-(p * np.log2(p)).sum()), 3))
    return entropies
