"""Uniform quantisation of feature maps, channel by channel, with ranges and histograms from calibration images.

Both ends of a codec hold the same buffers, so what is sent are the indexes of cells alone. A range has 256 cells; with
fewer bits cells are merged by dropping the index's low bits, and so are their counts and centroids, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semcodec.coding.quantiser import BITS, CELLS, cell_prior, check_cells
from semcodec.errors import UsageError
from semcodec.priors import Indexed
from semcodec.tensors import as_array

TAIL = 1e-4
"""Share of a channel's values that may lie beyond each end of its range, where they are clipped."""
COUNTED = 1 << 14


def finite(features: Tensor) -> Tensor:
    """The same. Raises UsageError for NaN or infinity."""
    if not torch.isfinite(features).all():
        raise UsageError("the features hold NaN or infinity, which cannot be quantised: look at the input or weights")
    return features


class ChannelQuantiser(nn.Module):
    """Values (B, C, H, W) to cells 0..255 and back. Values of fewer channels are of the first ones.

    Calibrated by ``see_range`` on all images, ``finish_ranges``, ``see`` on all images, ``finish``.
    unit: the range is [0, 1] as it stands, and only the cells are counted.
    """

    low: Tensor
    high: Tensor
    counts: Tensor
    centroids: Tensor

    def __init__(self, channels: int, unit: bool = False) -> None:
        super().__init__()
        self.unit = unit
        self.register_buffer("low", torch.full((channels,), 0.0 if unit else -1.0))
        self.register_buffer("high", torch.ones(channels))
        self.register_buffer("counts", torch.ones(channels, CELLS, dtype=torch.int16))
        self.register_buffer("centroids", self._middles())
        self._seen: list[Any] = []

    # -- calibration -------------------------------------------------------------------------------------------------

    def see_range(self, x: Tensor) -> None:
        """Calibration: x (B, C, H, W) counts towards the range of each channel."""
        if self.unit:
            return
        flat = x.detach().transpose(0, 1).flatten(1).float().sort(1).values
        end = max(0, round((1 - TAIL) * flat.shape[1]) - 1)
        self._seen.append(torch.stack([flat[:, flat.shape[1] - 1 - end], flat[:, end]]))

    def finish_ranges(self) -> None:
        """The mean over batches of what holds all but a ten-thousandth at each end."""
        if not self.unit:
            low, high = torch.stack(self._taken()).mean(0)
            # A channel that never changes has a range all the same. Half precision is what files keep.
            self.low.copy_(low.half())
            self.high.copy_(torch.maximum(high, low + 1e-3 * low.abs().clamp_min(1.0)).half())
        self.centroids.copy_(self._middles())

    def see(self, x: Tensor) -> None:
        """Calibration: what falls into each cell of x, (B, C, H, W)."""
        if not self._seen:
            self._seen = [torch.zeros(self.counts.shape, dtype=torch.float64, device=x.device) for _ in range(2)]
        cells = self._cells(x.detach().float()).transpose(0, 1).flatten(1).long()
        values = self._clipped(x.detach().float()).transpose(0, 1).flatten(1).double()
        self._seen[0].scatter_add_(1, cells, torch.ones_like(values))
        self._seen[1].scatter_add_(1, cells, values)

    def finish(self) -> None:
        """Counts, scaled, none below one; the centroid of a cell is the mean of what fell into it, or its middle."""
        counts, sums = self._taken()
        middles = self._middles()
        self.centroids.copy_(torch.where(counts > 0, (sums / counts.clamp_min(1)).float(), middles).half())
        scaled = counts / counts.sum(1, keepdim=True) * (COUNTED - CELLS)
        self.counts.copy_(scaled.round() + 1)

    def _taken(self) -> list[Any]:
        if not self._seen:
            raise UsageError("there are no images to calibrate on: give a data set that has some")
        seen, self._seen = self._seen, []
        return seen

    # -- both ends ---------------------------------------------------------------------------------------------------

    def symbols(self, x: Tensor, bits: int = BITS) -> npt.NDArray[np.int32]:
        """(B, C, H, W) float to int32 cells of 0..2**bits - 1. Raises UsageError for NaN or infinity."""
        cells: npt.NDArray[np.int32] = as_array(self._cells(finite(x)).int() >> (BITS - bits))
        return cells

    def values(self, symbols: npt.NDArray[np.int32], bits: int = BITS) -> Tensor:
        """(C, ...) cells to float32, where the quantiser is. Raises CorruptStream for a cell that does not exist."""
        return self.batch_values([symbols], bits)[0]

    def batch_values(self, symbols: Sequence[npt.NDArray[np.integer[Any]]], bits: int = BITS) -> Tensor:
        """Cells of several samples, each (C, ...), to float32 (B, C, ...). Raises CorruptStream as ``values`` does."""
        cells = np.stack(symbols).astype(np.int64)
        check_cells(cells, bits)
        merged = self._merged(bits, cells.shape[1], "cpu")  # where every machine adds up alike
        rows = torch.from_numpy(cells).flatten(2)
        values = merged.expand(len(cells), -1, -1).gather(2, rows).view(cells.shape)
        return values.to(self.centroids.device)

    def soft(self, x: Tensor, bits: int = BITS) -> Tensor:
        """What ``values`` of ``symbols`` would be, for training: gradients pass within the range."""
        inside = self._clipped(x)
        cells = (self._cells(x) // (1 << (BITS - bits))).long().transpose(0, 1)
        values = self._merged(bits, len(cells)).gather(1, cells.flatten(1)).view(cells.shape).transpose(0, 1)
        return inside + (values - inside).detach()

    def prior(self, bits: int, places: int) -> Indexed:
        """One static table for each channel, of ``places`` symbols each, channel by channel."""
        return cell_prior(as_array(self.counts), bits, places)

    def _cells(self, x: Tensor) -> Tensor:
        low, high = self._column(self.low, x), self._column(self.high, x)
        return ((x - low) * (CELLS / (high - low))).floor().clamp(0, CELLS - 1)

    def _clipped(self, x: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(x, self._column(self.low, x)), self._column(self.high, x))

    @staticmethod
    def _column(t: Tensor, x: Tensor) -> Tensor:
        return t[: x.shape[1]].view(-1, *[1] * (x.ndim - 2))

    def _middles(self) -> Tensor:
        middles = (
            self.low[:, None]
            + (torch.arange(CELLS, device=self.low.device) + 0.5) * ((self.high - self.low) / CELLS)[:, None]
        )
        return middles.half().float()

    @staticmethod
    def _groups(t: Tensor, bits: int) -> Tensor:
        return t.view(len(t), 1 << bits, -1)

    def _merged(self, bits: int, channels: int, device: torch.device | str | None = None) -> Tensor:
        """Centroids of merged cells of the first channels, in float64 so that every machine rounds alike."""
        found = [t[:channels].to(device or t.device) for t in (self.counts, self.centroids)]
        if bits == BITS:
            return found[1]
        counts, centroids = (self._groups(t.double(), bits) for t in found)
        return ((counts * centroids).sum(2) / counts.sum(2)).float()
