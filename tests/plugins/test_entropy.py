"""Entropy stages: lossless on every int32 array with every prior, next to the entropy, and safe on damaged bytes."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcodec.coding.bits import pack_bits, packed_size, unpack_bits
from semcodec.coding.tables import (
    fit_table,
    ideal_bits,
    pack_table,
    table_from_counts,
    table_from_symbols,
    unpack_table,
)
from semcodec.errors import CorruptStream, UsageError
from semcodec.interfaces import EntropyStage
from semcodec.priors import Bits, Counted, Indexed, Int32, Prior, Table
from semcodec.testing import strategies
from semcodec_plugins.entropy import arithmetic, semcodec_components
from semcodec_plugins.entropy.arithmetic import Model, Rans, by_table, model_of
from semcodec_plugins.entropy.huffman import LONGEST, code_lengths

INT32 = np.iinfo(np.int32)


def build(target: str) -> EntropyStage:
    module, name = target.split(":")
    return getattr(import_module(module), name)()


STAGES = {component.name: build(component.target) for component in semcodec_components()}
PRIORS = ("counted", "table", "bare-table", "wide-table", "indexed", "bits", "wide-bits")


def laplace(scale: float, count: int, seed: int = 0) -> Int32:
    return np.round(np.random.default_rng(seed).laplace(0, scale, count)).astype(np.int32)


TABLE = table_from_symbols(laplace(8, 5000))
BARE = table_from_symbols(laplace(4, 5000), escape=False)
WIDE = table_from_symbols(laplace(3000, 5000))
TABLES = tuple(table_from_symbols(laplace(0.3 + i, 2000, i), escape=i % 2 == 0) for i in range(16))


def prior_of(name: str, count: int) -> Prior:
    if name == "indexed":
        return Indexed((*TABLES, WIDE), np.random.default_rng(count).integers(0, len(TABLES) + 1, count))
    given_priors = {
        "counted": Counted(),
        "table": TABLE,
        "bare-table": BARE,
        "wide-table": WIDE,
        "bits": Bits(1),
        "wide-bits": Bits(32),
    }
    return given_priors[name]


def entropy_bits(symbols: Int32) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float((counts * np.log2(len(symbols) / counts)).sum())


ARRAYS = {
    "empty": np.zeros(0, np.int32),
    "one symbol": np.array([-7], np.int32),
    "one-symbol alphabet": np.full(1000, 5, np.int32),
    "lowest only": np.full(300, INT32.min, np.int32),
    "two symbols": (laplace(1, 3000) > 0).astype(np.int32),
    "laplace": laplace(8, 3000),
    "bytes": np.random.default_rng(1).integers(0, 256, 2000).astype(np.int32),
    "full int16": np.random.default_rng(2).permutation(np.arange(-32768, 32768)).astype(np.int32),
    "full int32": np.random.default_rng(3).integers(INT32.min, INT32.max, 4000, endpoint=True).astype(np.int32),
    "extremes": np.array([INT32.min, INT32.max, 0, -1, INT32.min], np.int32),
    "smooth and wide": np.random.default_rng(4).normal(0, 1e6, 5000).astype(np.int32),
    "a lane of Huffman codes": laplace(300, 512),
    "a lane and one": laplace(300, 513),
}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("stage", STAGES)
def test_lossless(stage: str, array: str, prior: str) -> None:
    symbols = ARRAYS[array]
    coder, given_prior = STAGES[stage], prior_of(prior, len(symbols))
    data = coder.encode(symbols, given_prior)
    decoded = coder.decode(data, given_prior, len(symbols))
    assert decoded.dtype == np.int32
    assert np.array_equal(decoded, symbols)
    assert 0 <= coder.side_bytes(data, given_prior) <= len(data)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("stage", STAGES)
@given(symbols=strategies.symbols())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_lossless_property(stage: str, prior: str, symbols: Int32) -> None:
    coder, given_prior = STAGES[stage], prior_of(prior, len(symbols))
    assert np.array_equal(coder.decode(coder.encode(symbols, given_prior), given_prior, len(symbols)), symbols)


@pytest.mark.parametrize("stage", STAGES)
@given(drawn=strategies.coded())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_lossless_under_any_prior(stage: str, drawn: tuple[Int32, Prior]) -> None:
    symbols, prior = drawn
    coder = STAGES[stage]
    assert np.array_equal(coder.decode(coder.encode(symbols, prior), prior, len(symbols)), symbols)


@pytest.mark.parametrize("count", [10**6, pytest.param(10**7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("prior", ["counted", "table", "indexed", "wide-bits"])
@pytest.mark.parametrize("stage", STAGES)
def test_many_symbols(stage: str, prior: str, count: int) -> None:
    symbols = laplace(60, count)  # an alphabet above 256
    coder, given_prior = STAGES[stage], prior_of(prior, count)
    assert np.array_equal(coder.decode(coder.encode(symbols, given_prior), given_prior, count), symbols)


@pytest.mark.parametrize("scale", [0.5, 8, 60, 2000])
@pytest.mark.parametrize("stage", ["rans", "range"])
def test_within_a_thousandth_of_the_entropy(stage: str, scale: float) -> None:
    symbols = laplace(scale, 10**6)
    data = STAGES[stage].encode(symbols, Counted())
    table = STAGES[stage].side_bytes(data, Counted())
    assert len(data) <= 1.001 * entropy_bits(symbols) / 8 + table
    assert table < (0.01 if scale == 2000 else 0.001) * len(data) + 64
    given_table = table_from_symbols(symbols)
    assert len(STAGES[stage].encode(symbols, given_table)) <= 1.001 * entropy_bits(symbols) / 8


@pytest.mark.parametrize("scale", [0.2, 8, 60, 3000])
def test_huffman_within_one_bit_of_the_entropy(scale: float) -> None:
    symbols = laplace(scale, 200_000)
    data = STAGES["huffman"].encode(symbols, Counted())
    payload = 8 * (len(data) - STAGES["huffman"].side_bytes(data, Counted()))
    assert payload <= entropy_bits(symbols) + len(symbols)


def test_huffman_lengths_are_optimal() -> None:
    """The cost is that of the textbook construction: the sum of all merged weights."""
    counts = np.random.default_rng(5).geometric(0.01, 300)
    heap, cost = sorted(counts.tolist()), 0
    while len(heap) > 1:
        merged = heap.pop(0) + heap.pop(0)
        cost += merged
        heap = sorted([*heap, merged])
    lengths = code_lengths(counts)
    assert (counts * lengths).sum() == cost
    assert (2.0**-lengths).sum() == 1


def test_huffman_lengths_are_limited() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(sum(fibonacci[-2:]))
    lengths = code_lengths(np.array([0, *fibonacci]))
    assert lengths[0] == 0
    assert lengths.max() == LONGEST
    assert (2.0 ** -lengths[1:]).sum() == 1


@pytest.mark.parametrize("stage", ["rans", "range"])
def test_one_symbol_alphabet_sends_only_its_table(stage: str) -> None:
    symbols = np.full(100_000, 12, np.int32)
    data = STAGES[stage].encode(symbols, Counted())
    assert len(data) <= 8
    assert len(data) == STAGES[stage].side_bytes(data, Counted()) + 1
    certain = Table(12, np.array([1 << 12], np.uint32))
    assert STAGES[stage].encode(symbols, certain) == b""
    indexed = Indexed((certain, Table(-3, np.array([16], np.uint32))), np.arange(1000) % 2)
    both = np.where(np.arange(1000) % 2, -3, 12).astype(np.int32)
    assert STAGES[stage].encode(both, indexed) == b""
    assert np.array_equal(STAGES[stage].decode(b"", indexed, 1000), both)


def test_all_symbols_in_the_first_slot() -> None:
    """rANS writes no word at all for these, which must not read as the likeliest symbol."""
    table = Table(0, np.array([1, 15], np.uint32))
    symbols = np.zeros(500, np.int32)
    data = STAGES["rans"].encode(symbols, table)
    assert np.array_equal(STAGES["rans"].decode(data, table, 500), symbols)


def test_symbols_by_table_are_coded_by_their_own() -> None:
    index = np.random.default_rng(6).integers(0, 16, 100_000)
    symbols = np.round(np.random.default_rng(7).laplace(0, 0.3 + index)).astype(np.int32)
    ideal = sum(entropy_bits(symbols[index == i]) for i in range(16)) / 8
    tables = tuple(table_from_symbols(symbols[index == i]) for i in range(16))
    assert len(STAGES["rans"].encode(symbols, Indexed(tables, index))) < 1.001 * ideal
    assert ideal < 0.97 * len(STAGES["rans"].encode(symbols, Counted()))


def test_bits_take_their_width() -> None:
    mask = (laplace(1, 785) > 0).astype(np.int32)
    for stage in STAGES.values():
        assert len(stage.encode(mask, Bits())) == 99


def test_constriction_uses_exactly_the_table() -> None:
    """Boundaries of the model, probed through the range decoder, are the table's cumulative frequencies."""
    import constriction

    counts = np.random.default_rng(8).integers(1, 1000, 300) ** 2
    freqs = table_from_counts(counts, escape=True).freqs.astype(object)
    model, scale = Model(table_from_counts(counts, escape=True)), ((1 << 64) - 1) >> 24
    for slot, start in enumerate(np.cumsum(freqs)[:-1], start=1):
        for point, expected in ((start * scale, slot), (start * scale - 1, slot - 1)):
            words = np.array([point >> 32, point & 0xFFFFFFFF], np.uint32)
            assert constriction.stream.queue.RangeDecoder(words).decode(model.coder) == expected


@pytest.mark.parametrize("stage", ["rans", "range"])
def test_unusual_tables(stage: str) -> None:
    """Only an escape; zeros at the ends, in narrow and wide tables; an escape with no frequency of its own."""
    symbols = np.array([0, 3, 3, -5, 70_000, 3], np.int32)
    for freqs in ([0, 0, 16], [16], [0, 0, 12, 4, 0, 0], [*[0] * 6000, 12, *[0] * 6000, 4, 0]):
        for escape in (True, False):
            table = Table(0, np.array(freqs, np.uint32), escape)
            data = STAGES[stage].encode(symbols, table)
            assert np.array_equal(STAGES[stage].decode(data, table, 6), symbols)
    with pytest.raises(UsageError, match="range of int32"):
        STAGES[stage].encode(symbols, Table((1 << 31) - 1, np.array([8, 8], np.uint32)))


def test_models_are_made_once() -> None:
    assert model_of(TABLE) is model_of(TABLE)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("array", ["one-symbol alphabet", "laplace", "smooth and wide", "extremes"])
@pytest.mark.parametrize("stage", STAGES)
def test_damage(stage: str, array: str, prior: str) -> None:
    symbols = ARRAYS[array]
    coder, count = STAGES[stage], len(symbols)
    given_prior = prior_of(prior, count)
    data = coder.encode(symbols, given_prior)
    rng = np.random.default_rng(9)
    cases = [data[:n] for n in {*range(min(12, len(data))), *rng.integers(0, len(data) + 1, 8).tolist()}]
    cases += [data + b"\0", data + b"\1", data + bytes(7), b"\xff" * 40]
    cases += [rng.bytes(int(n)) for n in rng.integers(1, 60, 12)]
    for at in {*range(min(14, len(data))), *rng.integers(0, max(1, len(data)), 8).tolist()}:
        damaged = bytearray(data)
        if damaged:
            damaged[at] ^= 1 << int(rng.integers(8))
            cases.append(bytes(damaged))
    for case in cases:
        try:
            decoded = coder.decode(case, given_prior, count)
        except CorruptStream:
            continue
        assert decoded.dtype == np.int32
        assert decoded.shape == (count,)


@pytest.mark.parametrize("stage", STAGES)
def test_truncation_and_excess_are_noticed(stage: str) -> None:
    symbols = ARRAYS["laplace"]
    data = STAGES[stage].encode(symbols, Counted())
    for damaged in (data[: len(data) // 2], data + b"\1\2\3\4" * 4, b""):
        with pytest.raises(CorruptStream):
            STAGES[stage].decode(damaged, Counted(), len(symbols))
    with pytest.raises(CorruptStream):
        STAGES[stage].decode(b"x", Counted(), 0)


@pytest.mark.parametrize("stage", STAGES)
def test_other_arrays_are_refused(stage: str) -> None:
    with pytest.raises(UsageError, match="1-D int32"):
        STAGES[stage].encode(np.zeros(3, np.int64), Counted())
    with pytest.raises(UsageError, match="1-D int32"):
        STAGES[stage].encode(np.zeros((3, 3), np.int32), Counted())


def test_an_index_that_does_not_fit_is_refused() -> None:
    for index in (np.zeros(2, np.int64), np.full(3, 16), np.full(3, -1)):
        with pytest.raises(UsageError, match="table index"):
            Rans().encode(np.zeros(3, np.int32), Indexed(TABLES, index))


@given(
    counts=st.lists(st.one_of(st.just(0), st.integers(0, 20), st.integers(0, 10**7)), min_size=1, max_size=60),
    offset=st.integers(-(1 << 31), (1 << 31) - 100),
    escape=st.booleans(),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_tables_keep_every_symbol_and_pack_exactly(counts: list[int], offset: int, escape: bool) -> None:
    array = np.array(counts)
    if not array.any():
        with pytest.raises(UsageError):
            table_from_counts(array, offset)
        return
    table = table_from_counts(array, offset, escape=escape)
    symbols = table.freqs[: len(array)]
    assert np.array_equal(symbols > 0, array > 0)
    assert not escape or table.freqs[-1] > 0
    data = pack_table(table)
    unpacked, used = unpack_table(data + b"more")
    first = int(np.flatnonzero(array)[0])
    assert used == len(data)
    assert (unpacked.offset, unpacked.escape) == (offset + first, escape)
    assert np.array_equal(unpacked.freqs, np.trim_zeros(table.freqs))
    packed, fitted, bits = fit_table(array, offset)
    assert np.array_equal(unpack_table(packed)[0].freqs, fitted.freqs)
    assert bits == pytest.approx(8 * len(packed) + ideal_bits(array[first : first + len(fitted.freqs)], fitted))


def test_fitted_tables_are_small() -> None:
    """A few thousand symbols cannot afford a table at full precision, nor a million a coarse one."""
    few, many = laplace(8, 3000), laplace(20, 10**6)
    packed, _, bits = fit_table(np.bincount(few - few.min()), int(few.min()))
    assert len(packed) < 0.025 * entropy_bits(few) / 8
    assert bits < 1.03 * entropy_bits(few)
    packed, _, bits = fit_table(np.bincount(many - many.min()), int(many.min()))
    assert bits - 8 * len(packed) < 1.0005 * entropy_bits(many)


@given(data=st.binary(max_size=60))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_unpacking_any_bytes(data: bytes) -> None:
    try:
        table, used = unpack_table(data)
    except CorruptStream:
        return
    assert used <= len(data)
    assert table.freqs.sum(dtype=np.uint64) == 1 << table.precision


@pytest.mark.parametrize("width", range(33))
def test_packed_bits(width: int) -> None:
    values = np.random.default_rng(width).integers(0, 1 << width, 1001, endpoint=False).astype(np.uint32)
    data = pack_bits(values, width)
    assert len(data) == packed_size(width, 1001)
    assert np.array_equal(unpack_bits(data, width, 1001), values)


@pytest.mark.parametrize("tables", [1, 3, 64, 300])
@pytest.mark.parametrize("sort", [False, True], ids=["any order", "in order"])
def test_symbols_of_many_tables_are_in_the_same_order_however_they_are_sorted(monkeypatch, tables, sort):
    rng = np.random.default_rng(tables)
    index = rng.integers(0, tables, 5000).astype(np.uint16)
    index = np.sort(index) if sort else index
    symbols = rng.integers(INT32.min, INT32.max, 5000, dtype=np.int32)
    prior = Indexed(tuple(table_from_counts([1, 2], i) for i in range(tables)), index)
    found = []
    for many in (1, 1 << 16):  # by scipy and by numpy
        monkeypatch.setattr(arithmetic, "_MANY", many)
        found.append(by_table(prior, symbols))
    order = np.argsort(index, kind="stable")
    for values, groups in found:
        assert values.dtype == np.int32 and np.array_equal(values, symbols[order])
        assert groups.used.tolist() == np.unique(index).tolist()
        assert groups.models.offsets.tolist() == list(range(tables))
        assert np.array_equal(groups.used.repeat(groups.counts), index[order])
        assert [part.start for _, part in groups] == groups.starts.tolist()
