"""Cells of a uniform quantiser, channel by channel, as symbols under static tables; numpy alone.

A range has 256 cells; with fewer bits cells are merged by dropping the index's low bits, and so are their counts.
``semcodec.training.channel_quantiser`` has the module that is calibrated and turns values into cells and back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semcodec.coding.tables import channel_prior
from semcodec.errors import CorruptStream, UsageError
from semcodec.priors import Indexed

BITS, CELLS = 8, 256


def cell_prior(counts: npt.NDArray[np.integer[Any]], bits: int, places: int) -> Indexed:
    """One static table for each channel, of ``places`` symbols each, channel by channel.

    counts: (C, CELLS), how often training saw each cell.
    """
    merged = counts.astype(np.int32).reshape(len(counts), 1 << bits, -1).sum(2)
    return channel_prior(merged, places)


def check_finite(features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same. Raises UsageError for NaN or infinity."""
    if not np.isfinite(features).all():
        raise UsageError("the features hold NaN or infinity, which cannot be quantised: look at the input or weights")
    return features


def cells_of(
    x: npt.NDArray[Any], low: npt.NDArray[Any], high: npt.NDArray[Any], bits: int = BITS
) -> npt.NDArray[np.int32]:
    """Values (B, C, ...) to int32 cells of 0..2**bits - 1. Raises UsageError for NaN or infinity.

    low, high: float32 (C or more,), the ranges; values of fewer channels are of the first ones.
    """
    column = (x.shape[1], *[1] * (x.ndim - 2))
    low, high = low[: x.shape[1]].reshape(column), high[: x.shape[1]].reshape(column)
    cells = np.floor((check_finite(x) - low) * (np.float32(CELLS) / (high - low)))
    merged: npt.NDArray[np.int32] = np.clip(cells, 0, CELLS - 1).astype(np.int32) >> (BITS - bits)
    return merged


def merged_centroids(counts: npt.NDArray[Any], centroids: npt.NDArray[Any], bits: int) -> npt.NDArray[np.float32]:
    """What cells of ``bits`` bits stand for, (C, 2**bits): of merged cells the mean, weighed by their counts."""
    if bits == BITS:
        return centroids
    many, middle = (t.astype(np.float64).reshape(len(t), 1 << bits, -1) for t in (counts, centroids))
    means: npt.NDArray[np.float32] = ((many * middle).sum(2) / many.sum(2)).astype(np.float32)
    return means


def check_cells(symbols: npt.NDArray[np.integer[Any]], bits: int) -> None:
    """Raises CorruptStream for a cell that does not exist."""
    if symbols.size and not 0 <= int(symbols.min()) <= int(symbols.max()) < 1 << bits:
        raise CorruptStream(f"the packet holds a value that is none of {1 << bits} levels; get it again")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from semcodec._moved import moved_name

        return moved_name(__name__, name)
