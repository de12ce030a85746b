"""Cells of a uniform quantiser, channel by channel, as symbols under static tables; numpy alone.

A range has 256 cells; with fewer bits cells are merged by dropping the index's low bits, and so are their counts.
``semcodec.training.channel_quantiser`` has the module that is calibrated and turns values into cells and back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semcodec.coding.tables import channel_prior
from semcodec.errors import CorruptStream
from semcodec.priors import Indexed

BITS, CELLS = 8, 256


def cell_prior(counts: npt.NDArray[np.integer[Any]], bits: int, places: int) -> Indexed:
    """One static table for each channel, of ``places`` symbols each, channel by channel.

    counts: (C, CELLS), how often training saw each cell.
    """
    merged = counts.astype(np.int32).reshape(len(counts), 1 << bits, -1).sum(2)
    return channel_prior(merged, places)


def check_cells(symbols: npt.NDArray[np.integer[Any]], bits: int) -> None:
    """Raises CorruptStream for a cell that does not exist."""
    if symbols.size and not 0 <= int(symbols.min()) <= int(symbols.max()) < 1 << bits:
        raise CorruptStream(f"the packet holds a value that is none of {1 << bits} levels; get it again")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from semcodec._moved import moved_name

        return moved_name(__name__, name)
