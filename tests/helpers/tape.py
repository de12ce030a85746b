"""A sink and source in memory that weighs symbols by their ideal code lengths, so that no entropy stage is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semcodec.errors import CorruptStream
from semcodec.priors import Bits, Counted, Indexed, Table


class Tape:
    """Write, then ``rewind()`` and read. ``chunks``: [name, data, side, bytes], open to damage by a test."""

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.params = params or {}
        self.chunks: list[list[Any]] = []
        self._writing, self._at = True, 0

    def rewind(self) -> Tape:
        self._writing, self._at = False, 0
        return self

    @property
    def bytes(self) -> float:
        return sum(chunk[3] for chunk in self.chunks)

    @property
    def payload(self) -> float:
        return sum(chunk[3] for chunk in self.chunks if not chunk[2])

    def symbols(self, name: str, values: Any, prior: Any, *, side: bool = False) -> Any:
        if self._writing:
            assert values.ndim == 1
            assert values.dtype == np.int32
            self.chunks.append([name, values.copy(), side, ideal_bytes(values, prior)])
            return None
        data = self._next(name)
        if not isinstance(data, np.ndarray) or data.size != values:
            raise CorruptStream(f"{name}: not {values} symbols")
        if isinstance(prior, Indexed):
            assert len(prior.index) == values
        return data.copy()

    def blob(self, name: str, data: Any, *, side: bool = False) -> Any:
        if self._writing:
            self.chunks.append([name, data, side, len(data)])
            return None
        found = self._next(name)
        if not isinstance(found, bytes) or len(found) > data:
            raise CorruptStream(f"{name}: no blob of up to {data} bytes")
        return found

    def _next(self, name: str) -> Any:
        if self._at == len(self.chunks) or self.chunks[self._at][0] != name:
            raise CorruptStream(f"no chunk {name}")
        self._at += 1
        return self.chunks[self._at - 1][1]


def ideal_bytes(values: Any, prior: Any) -> float:
    """Code length by the prior's probabilities, plus two bytes for each entry of a counted histogram."""
    if isinstance(prior, Bits):
        assert values.size == 0 or 0 <= values.min() <= values.max() < 1 << prior.width
        return values.size * prior.width / 8
    if isinstance(prior, Counted):
        counts = np.unique(values, return_counts=True)[1]
        return float(-(counts * np.log2(counts / max(values.size, 1))).sum() / 8 + 2 * counts.size)
    if isinstance(prior, Table):
        prior = Indexed((prior,), np.zeros(len(values), int))
    tables, index = prior.tables, prior.index
    total = 0.0
    for i, table in enumerate(tables):
        assert isinstance(table, Table)
        chosen = values[index == i] - table.offset
        assert chosen.size == 0 or 0 <= chosen.min() <= chosen.max() < len(table.freqs), "outside the table"
        total -= float(np.log2(table.freqs[chosen] / 2**table.precision).sum())
    return total / 8
