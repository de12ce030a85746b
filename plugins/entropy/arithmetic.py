"""Entropy coding next to the entropy: rANS and range coding by constriction, over exact integer tables.

Layout of a payload: the coder's 32-bit words, little endian, without the zero octets at the last word's end. No
octets at all stand for every table's likeliest symbol throughout, so a one-symbol alphabet sends nothing. Symbols
that a table does not have are coded as its escape, and follow at the end as two uniform 16-bit halves each.
A ``Counted`` prior puts the layout of ``counted`` around it. With an ``Indexed`` prior all symbols of the first
table come first, then those of the second, in their own order: one coder call for each table.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import constriction
import numpy as np
import numpy.typing as npt

from semcodec.coding.coder_errors import only_corrupt
from semcodec.errors import CorruptStream, UsageError
from semcodec.priors import Counted, Indexed, Int32, Prior, Table
from semcodec_plugins.entropy.counted import counted_side_bytes, decode_counted, encode_counted
from semcodec_plugins.entropy.stage import Stage

Words = npt.NDArray[np.uint32]
Run = tuple[Int32, Any]
"""Slots and the constriction model they are coded with."""

_TOTAL = 1 << 24  # of constriction's frequencies
_DENSE = 1 << 12  # alphabets up to here keep their absent symbols, which saves looking every symbol up
_MANY = 1 << 16  # symbols from which a counting sort pays for the import of scipy, a tenth of a second
_HALF = constriction.stream.model.Uniform(1 << 16)


class Model:
    """A table made ready: symbols to slots ``0 .. size - 1``, slot ``size`` being the escape.

    Every slot has a frequency of at least one in 2**24, taken from the likeliest.
    """

    def __init__(self, table: Table) -> None:
        freqs = table.freqs.astype(np.int64) * (_TOTAL >> table.precision)
        escape, freqs = (int(freqs[-1]), freqs[:-1]) if table.escape else (0, freqs)
        used = np.flatnonzero(freqs)
        first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
        offset, self.span = table.offset + first, last - first + 1
        if not -(1 << 31) <= offset <= (1 << 31) - self.span:
            raise UsageError(f"a table of {self.span} symbols from {offset} on leaves the range of int32")
        freqs = freqs[first : last + 1] if len(used) else np.zeros(1, np.int64)
        self.offset = np.int32(offset)
        self.slots: Int32 | None = None
        self.places: Int32 | None = None
        if self.span > _DENSE:
            self.places = (used - first).astype(np.int32)
            freqs = freqs[self.places]
            self.slots = np.full(self.span + 1, len(freqs), np.int32)
            self.slots[self.places] = np.arange(len(freqs), dtype=np.int32)
        self.size, likeliest = len(freqs), int(freqs.argmax())
        self.likeliest = np.int32(offset + (likeliest if self.places is None else int(self.places[likeliest])))
        freqs = np.append(freqs, escape)
        absent = freqs == 0
        freqs[freqs.argmax()] -= np.count_nonzero(absent)
        freqs[absent] = 1
        # constriction gives each symbol 1 and shares 2**24 - len(freqs) in proportion: here by a factor of
        # exactly one, so that its integers are these, on any machine.
        self.coder = constriction.stream.model.Categorical((freqs - 1).astype(np.float64), perfect=False)

    def place(self, slots: Int32, symbols: Int32, low: int, high: int) -> Int32:
        """Make symbols less the offset, in place, slots; which are escaped. low, high: of the symbols."""
        outside = low < self.offset or high - int(self.offset) >= self.span
        if outside:
            places = slots.view(np.uint32)  # what is below the offset becomes huge
            np.minimum(places, np.uint32(self.span), out=places)
        if self.slots is not None:
            slots[:] = self.slots[slots]
            outside = slots.max() >= self.size
        return symbols[slots == self.size] if outside else symbols[:0]

    def to_places(self, slots: Int32) -> Int32:
        """Of each slot the symbol's distance from the offset; of the escape any."""
        return slots if self.places is None else np.append(self.places, np.int32(0))[slots]


_models: WeakKeyDictionary[Table, Model] = WeakKeyDictionary()


def model_of(table: Table) -> Model:
    """The table made ready, once for as long as the table is there."""
    model = _models.get(table)
    if model is None:
        model = _models[table] = Model(table)
    return model


class Arithmetic(Stage):
    """What the two coders share; they differ in how words are made and read."""

    def _encode(self, symbols: Int32, prior: Prior) -> bytes:
        if isinstance(prior, Counted):
            return encode_counted(symbols, lambda high, table: self._encode_table(high, table))
        if isinstance(prior, Table):
            return self._encode_table(symbols, prior)
        assert isinstance(prior, Indexed)
        return self._encode_groups(*by_table(prior, symbols))

    def _decode(self, data: bytes, prior: Prior, count: int) -> Int32:
        if isinstance(prior, Counted):
            return decode_counted(data, count, lambda part, table, n: self._decode_table(part, table, n))
        if isinstance(prior, Table):
            return self._decode_table(data, prior, count)
        assert isinstance(prior, Indexed)
        order, groups = by_table(prior, np.arange(count, dtype=np.int32))
        symbols = np.empty(count, np.int32)
        symbols[order] = self._decode_groups(data, groups)
        return symbols

    def _side_bytes(self, data: bytes, prior: Prior) -> int:
        return counted_side_bytes(data) if isinstance(prior, Counted) else 0

    def _decode_table(self, data: bytes, table: Table, count: int) -> Int32:
        return self._decode_groups(data, [(model_of(table), count)])

    def _encode_table(self, symbols: Int32, table: Table) -> bytes:
        return self._encode_groups(symbols, [(model_of(table), len(symbols))])

    def _encode_groups(self, symbols: Int32, groups: Sequence[tuple[Model, int]]) -> bytes:
        """All groups' symbols, one group after the other."""
        bounds = np.cumsum([0, *(count for _, count in groups)])
        lows, highs = (ufunc.reduceat(symbols, bounds[:-1]) for ufunc in (np.minimum, np.maximum))
        likeliest = np.array([model.likeliest for model, _ in groups])
        if (lows == likeliest).all() and (highs == likeliest).all():
            return b""
        offsets = [model.offset for model, _ in groups]
        slots = symbols - (offsets[0] if len(groups) == 1 else np.repeat(offsets, np.diff(bounds)))
        runs, rest = [], []
        ends = zip(pairwise(bounds.tolist()), lows.tolist(), highs.tolist(), strict=True)
        for (model, _), ((start, stop), low, high) in zip(groups, ends, strict=True):
            rest.append(model.place(slots[start:stop], symbols[start:stop], low, high))
            runs.append((slots[start:stop], model.coder))
        values = np.concatenate(rest).view(np.uint32)
        if len(values):
            runs.append((np.stack([values >> 16, values & 0xFFFF], axis=1).astype(np.int32).ravel(), _HALF))
        data = self.push(runs).astype("<u4", copy=False).tobytes()
        return data[:-3] + data[-3:].rstrip(b"\0")

    def _decode_groups(self, data: bytes, groups: Sequence[tuple[Model, int]]) -> Int32:
        if not data:
            return np.concatenate([np.full(count, model.likeliest, np.int32) for model, count in groups])
        if data[-1] == 0 and len(data) % 4 != 1:
            raise CorruptStream("coded symbols end in octets that are never sent")
        words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32, copy=False)
        with only_corrupt():
            reader = self.reader(words)
            symbols, escaped = to_symbols(groups, [reader.decode(model.coder, count) for model, count in groups])
            if escaped is not None:
                halves = reader.decode(_HALF, 2 * int(np.count_nonzero(escaped))).view(np.uint32)
                symbols[escaped] = (halves[::2] << 16 | halves[1::2]).view(np.int32)
            if not self.finished(reader):
                raise CorruptStream("coded symbols are followed by more")
        return symbols

    @abstractmethod
    def push(self, runs: Sequence[Run]) -> Words:
        """The words of all runs, to be read in this order; at least one word."""

    @abstractmethod
    def reader(self, words: Words) -> Any:
        """What reads those words."""

    @abstractmethod
    def finished(self, reader: Any) -> bool:
        """Whether a reader has nothing left."""


class Rans(Arithmetic):
    """Asymmetric numeral systems. A stack: what is read first is written last. An empty one is sent as one zero."""

    def push(self, runs: Sequence[Run]) -> Words:
        coder = constriction.stream.stack.AnsCoder()
        for slots, model in reversed(runs):
            coder.encode_reverse(slots, model)
        words: Words = coder.get_compressed()
        return words if len(words) else np.zeros(1, np.uint32)

    def reader(self, words: Words) -> Any:
        empty = len(words) == 1 and not words[0]
        return constriction.stream.stack.AnsCoder() if empty else constriction.stream.stack.AnsCoder(words)

    def finished(self, reader: Any) -> bool:
        return bool(reader.is_empty())


class Range(Arithmetic):
    """Range coding. A queue."""

    def push(self, runs: Sequence[Run]) -> Words:
        coder = constriction.stream.queue.RangeEncoder()
        for slots, model in runs:
            coder.encode(slots, model)
        words: Words = coder.get_compressed()
        return words

    def reader(self, words: Words) -> Any:
        return constriction.stream.queue.RangeDecoder(words)

    def finished(self, reader: Any) -> bool:
        return bool(reader.maybe_exhausted())


def to_symbols(
    groups: Sequence[tuple[Model, int]], decoded: Sequence[Int32]
) -> tuple[Int32, npt.NDArray[np.bool_] | None]:
    """Symbols of all groups' slots (in place where it can be), and a mask of the escapes if there are any.

    As few passes as there can be over all groups together: of a packet each often has only a few symbols.
    """
    counts = [count for _, count in groups]
    slots = decoded[0] if len(groups) == 1 else np.concatenate(decoded)
    highest = np.maximum.reduceat(slots, np.cumsum([0, *counts[:-1]]))
    sizes = np.array([model.size for model, _ in groups])
    escaped = slots == np.repeat(sizes, counts) if (highest >= sizes).any() else None
    if any(model.places is not None for model, _ in groups):
        parts = zip(groups, np.split(slots, np.cumsum(counts[:-1])), strict=True)
        slots = np.concatenate([model.to_places(part) for (model, _), part in parts])
    slots += groups[0][0].offset if len(groups) == 1 else np.repeat([model.offset for model, _ in groups], counts)
    return slots, escaped


def by_table(prior: Indexed, values: Int32) -> tuple[Int32, list[tuple[Model, int]]]:
    """The values in stable order by table, and of each table that is used its model and how many are its."""
    index, count, total = prior.index, len(values), len(prior.tables)
    if index.shape != (count,) or index.min() < 0 or index.max() >= total:
        raise UsageError(
            f"an indexed prior needs one table index below {total} for each of {count} symbols, not "
            f"{index.shape} from {index.min(initial=0)} to {index.max(initial=0)}"
        )
    if (index[1:] >= index[:-1]).all():
        bounds = np.searchsorted(index, np.arange(total + 1)).tolist()
    elif count < _MANY or (csr_array := _sparse()) is None:
        narrow = index.astype(np.min_scalar_type(total))  # by radix, where 16 bits are enough
        order = narrow.argsort(kind="stable")
        bounds = np.searchsorted(narrow.take(order), np.arange(total + 1, dtype=narrow.dtype)).tolist()
        values = values.take(order)
    else:
        # A matrix of one value a row, in the column of its table: by columns it is what a counting sort would give.
        rows = csr_array((values, index.astype(np.int32), np.arange(count + 1, dtype=np.int32)), shape=(count, total))
        columns = rows.tocsc()
        values, bounds = columns.data, columns.indptr.tolist()
    counts = (stop - start for start, stop in pairwise(bounds))
    return values, [(model_of(table), n) for table, n in zip(prior.tables, counts, strict=True) if n]


def _sparse() -> Any:
    """scipy's sparse matrix, which counts; None where there is no scipy, as on a device: all is sorted there."""
    try:
        from scipy.sparse import csr_array
    except ImportError:
        return None
    return csr_array
