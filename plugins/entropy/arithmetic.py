"""Entropy coding next to the entropy: rANS and range coding by constriction, over exact integer tables.

Layout of a payload: the coder's 32-bit words, little endian, without the zero octets at the last word's end. No
octets at all stand for every table's likeliest symbol throughout, so a one-symbol alphabet sends nothing. Symbols
that a table does not have are coded as its escape, and follow at the end as two uniform 16-bit halves each.
A ``Counted`` prior puts the layout of ``counted`` around it. With an ``Indexed`` prior all symbols of the first
table come first, then those of the second, in their own order: one coder call for each table.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
Indices = npt.NDArray[np.int64]
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

    def place(self, slots: Int32, symbols: Int32) -> Int32:
        """Make symbols less the offset, in place, slots; which are escaped."""
        places = slots.view(np.uint32)  # what is below the offset becomes huge
        np.minimum(places, np.uint32(self.span), out=places)
        if self.slots is not None:
            slots[:] = self.slots[slots]
        escaped: Int32 = symbols[slots == self.size]
        return escaped

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


class Models:
    """Several tables made ready, and in arrays what is asked of all at once: of a packet's symbols each has few."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.coders = [model.coder for model in models]
        self.models = list(models)
        self.offsets = np.array([model.offset for model in models], np.int32)
        self.likeliest = np.array([model.likeliest for model in models], np.int32)
        self.spans = np.array([model.span for model in models], np.int64)
        self.sizes = np.array([model.size for model in models], np.int32)
        self.sparse = np.array([model.places is not None for model in models])


@lru_cache(maxsize=16)
def models_of(tables: tuple[Table, ...]) -> Models:
    """Those of an ``Indexed`` prior, whose tables a codec uses again and again."""
    return Models([model_of(table) for table in tables])


@dataclass(frozen=True)
class Groups:
    """Symbols one group after the other, each under its model. used: which have any. starts, counts: of these."""

    models: Models
    used: Indices
    starts: Indices
    counts: Indices

    @classmethod
    def of(cls, models: Models, counts: Indices) -> Groups:
        """counts: of every model, int64."""
        used = counts.nonzero()[0]
        return cls(models, used, (counts.cumsum() - counts)[used], counts[used])

    @classmethod
    def alone(cls, table: Table, count: int) -> Groups:
        """All of one table."""
        return cls(Models([model_of(table)]), np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([count]))

    def __iter__(self) -> Iterator[tuple[int, slice]]:
        """The number of each model that is used, and where its symbols are."""
        for number, start, count in zip(self.used.tolist(), self.starts.tolist(), self.counts.tolist(), strict=True):
            yield number, slice(start, start + count)

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A value of each model as a value of each symbol, or of all where there is one group."""
        return values[self.used] if len(self.used) == 1 else values[self.used].repeat(self.counts)

    def over(self, ufunc: np.ufunc, symbols: Int32) -> Int32:
        """Each group's least or greatest symbol."""
        found: Int32 = ufunc.reduceat(symbols, self.starts)
        return found


class Arithmetic(Stage):
    """What the two coders share; they differ in how words are made and read."""

    def _encode(self, symbols: Int32, prior: Prior) -> bytes:
        if isinstance(prior, Counted):
            return encode_counted(
                symbols, lambda high, table: self._encode_groups(high, Groups.alone(table, len(high)))
            )
        if isinstance(prior, Table):
            return self._encode_groups(symbols, Groups.alone(prior, len(symbols)))
        assert isinstance(prior, Indexed)
        return self._encode_groups(*by_table(prior, symbols))

    def _decode(self, data: bytes, prior: Prior, count: int) -> Int32:
        if isinstance(prior, Counted):
            return decode_counted(data, count, self._decode_table)
        if isinstance(prior, Table):
            return self._decode_table(data, prior, count)
        assert isinstance(prior, Indexed)
        order, groups = by_table(prior, np.arange(count, dtype=np.int32))
        symbols = np.empty(count, np.int32)
        symbols[order] = self._decode_groups(data, groups)
        return symbols

    def _side_bytes(self, data: bytes, prior: Prior) -> int:
        return counted_side_bytes(data) if isinstance(prior, Counted) else 0

    def _encode_table(self, symbols: Int32, table: Table) -> bytes:
        return self._encode_groups(symbols, Groups.alone(table, len(symbols)))

    def _decode_table(self, data: bytes, table: Table, count: int) -> Int32:
        return self._decode_groups(data, Groups.alone(table, count))

    def _encode_groups(self, symbols: Int32, groups: Groups) -> bytes:
        """All groups' symbols, one group after the other."""
        models, used = groups.models, groups.used
        lows, highs = groups.over(np.minimum, symbols), groups.over(np.maximum, symbols)
        likeliest = models.likeliest[used]
        if (lows == likeliest).all() and (highs == likeliest).all():
            return b""
        slots = groups.spread(models.offsets)
        slots = np.subtract(symbols, slots, out=slots if len(slots) == len(symbols) else None)
        offsets = models.offsets[used]
        odd = (lows < offsets) | (highs - offsets.astype(np.int64) >= models.spans[used]) | models.sparse[used]
        runs, rest = [], []
        for (number, part), is_odd in zip(groups, odd.tolist(), strict=True):
            if is_odd:
                rest.append(models.models[number].place(slots[part], symbols[part]))
            runs.append((slots[part], models.coders[number]))
        if any(map(len, rest)):
            values = np.concatenate(rest).view(np.uint32)
            runs.append((np.stack([values >> 16, values & 0xFFFF], axis=1).astype(np.int32).ravel(), _HALF))
        data = self.push(runs).astype("<u4", copy=False).tobytes()
        return data[:-3] + data[-3:].rstrip(b"\0")

    def _decode_groups(self, data: bytes, groups: Groups) -> Int32:
        if not data:
            return np.repeat(groups.models.likeliest[groups.used], groups.counts)
        if data[-1] == 0 and len(data) % 4 != 1:
            raise CorruptStream("coded symbols end in octets that are never sent")
        words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32, copy=False)
        with only_corrupt():
            reader, coders = self.reader(words), groups.models.coders
            counted = zip(groups.used.tolist(), groups.counts.tolist(), strict=True)
            symbols, escaped = to_symbols(groups, [reader.decode(coders[number], count) for number, count in counted])
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


def to_symbols(groups: Groups, decoded: Sequence[Int32]) -> tuple[Int32, npt.NDArray[np.bool_] | None]:
    """Symbols of all groups' slots (in place where it can be), and a mask of the escapes if there are any."""
    models, used = groups.models, groups.used
    slots = decoded[0] if len(decoded) == 1 else np.concatenate(decoded)
    sizes = models.sizes[used]
    escaped = slots == groups.spread(models.sizes) if (groups.over(np.maximum, slots) >= sizes).any() else None
    if models.sparse[used].any():
        slots = np.concatenate([models.models[number].to_places(slots[part]) for number, part in groups])
    slots += groups.spread(models.offsets)
    return slots, escaped


def by_table(prior: Indexed, values: Int32) -> tuple[Int32, Groups]:
    """The values in stable order by table, and how many are each table's."""
    index, count, total = prior.index, len(values), len(prior.tables)
    if index.shape != (count,) or index.min() < 0 or index.max() >= total:
        raise UsageError(
            f"an indexed prior needs one table index below {total} for each of {count} symbols, not "
            f"{index.shape} from {index.min(initial=0)} to {index.max(initial=0)}"
        )
    if (index[1:] >= index[:-1]).all():
        counts = np.bincount(index, minlength=total)
    elif count < _MANY or (csr_array := _sparse()) is None:
        narrow = index.astype(np.min_scalar_type(total), copy=False)  # by radix, where 16 bits are enough
        values, counts = values.take(narrow.argsort(kind="stable")), np.bincount(narrow, minlength=total)
    else:
        # A matrix of one value a row, in the column of its table: by columns it is what a counting sort would give.
        rows = csr_array((values, index.astype(np.int32), _ascending(count + 1)), shape=(count, total))
        columns = rows.tocsc()
        values, counts = columns.data, np.diff(columns.indptr)
    return values, Groups.of(models_of(prior.tables), counts.astype(np.int64, copy=False))


def _sparse() -> Any:
    """scipy's sparse matrix, which counts; None where there is no scipy, as on a device: all is sorted there."""
    try:
        from scipy.sparse import csr_array
    except ImportError:
        return None
    return csr_array


@lru_cache(maxsize=1)
def _ascending(count: int) -> Int32:
    """0 to ``count`` - 1, kept, as packets of one codec are of one size."""
    return np.arange(count, dtype=np.int32)
