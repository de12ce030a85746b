"""Speed of the entropy stages beside what they are built on, in one process.

Run with ``pytest tests/benchmarks --benchmark-enable --benchmark-group-by=group``: each group holds ours and its
references, and the figures in brackets are the ratios. Medians of a quiet machine count; nothing is asserted but
that the answers are right. Targets, of a reference's speed: with a given table 85 % of bare constriction encoding
and 90 % decoding; counted 80 % of bare constriction with ``numpy.bincount`` and ``zlib.crc32``; 64 tables 60 % of
one; 4 times (encode) and 2.5 times (decode) compressai's coder with its conversion to lists.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import constriction
import numpy as np
import pytest

from semcodec.coding.tables import table_from_counts, table_from_symbols
from semcodec.priors import Counted, Indexed
from semcodec_plugins.entropy.arithmetic import Arithmetic, Range, Rans

COUNT = 10**6
OFFSET = 128
RNG = np.random.default_rng(0)
SYMBOLS = np.clip(np.round(RNG.laplace(0, 8, COUNT)), -OFFSET, 127).astype(np.int32)
SLOTS = SYMBOLS + np.int32(OFFSET)
COUNTS = np.bincount(SLOTS, minlength=256)
TABLE = table_from_counts(COUNTS, -OFFSET)
BARE = constriction.stream.model.Categorical(COUNTS.astype(np.float64), perfect=False)
INDEX = RNG.integers(0, 64, COUNT).astype(np.uint8)
MIXED = np.round(RNG.laplace(0, 1 + INDEX / 4)).astype(np.int32)
INDEXED = Indexed(tuple(table_from_symbols(MIXED[i == INDEX]) for i in range(64)), INDEX)
ONE = table_from_symbols(MIXED)
STAGES = {"rans": Rans(), "range": Range()}


def bare_encode(name: str) -> Any:
    if name == "rans":
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(SLOTS, BARE)
    else:
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(SLOTS, BARE)
    return coder.get_compressed()


def bare_decode(name: str, words: Any) -> Any:
    stream = constriction.stream
    reader = stream.stack.AnsCoder(words) if name == "rans" else stream.queue.RangeDecoder(words)
    return reader.decode(BARE, COUNT)


def bare_counted(name: str) -> int:
    np.bincount(SLOTS)
    return zlib.crc32(bare_encode(name).tobytes())


def timed(benchmark: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    return benchmark.pedantic(function, arguments, rounds=20, warmup_rounds=2)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("who", ["bare", "ours", "ours counted", "bare, bincount, crc32"])
def test_encode(benchmark: Any, who: str, name: str) -> None:
    counted = who in ("ours counted", "bare, bincount, crc32")
    benchmark.group = f"encode {'counted' if counted else 'given'} {name}"
    if who == "bare":
        assert len(timed(benchmark, bare_encode, name))
    elif who == "ours":
        assert len(timed(benchmark, STAGES[name].encode, SYMBOLS, TABLE)) < 4 * len(bare_encode(name)) * 1.001
    elif who == "ours counted":
        assert len(timed(benchmark, STAGES[name].encode, SYMBOLS, Counted()))
    else:
        timed(benchmark, bare_counted, name)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("who", ["bare", "ours"])
def test_decode(benchmark: Any, who: str, name: str) -> None:
    benchmark.group = f"decode given {name}"
    if who == "bare":
        assert np.array_equal(timed(benchmark, bare_decode, name, bare_encode(name)), SLOTS)
    else:
        data = STAGES[name].encode(SYMBOLS, TABLE)
        assert np.array_equal(timed(benchmark, STAGES[name].decode, data, TABLE, COUNT), SYMBOLS)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("prior", [ONE, INDEXED], ids=["one table", "64 tables"])
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_indexed(benchmark: Any, way: str, prior: Any, stage: Arithmetic) -> None:
    benchmark.group = f"{way} by table {type(stage).__name__}"
    if way == "encode":
        assert timed(benchmark, stage.encode, MIXED, prior)
    else:
        assert np.array_equal(timed(benchmark, stage.decode, stage.encode(MIXED, prior), prior, COUNT), MIXED)


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_compressai(benchmark: Any, way: str) -> None:
    """Its coder takes lists and 16-bit cumulative frequencies with one more entry, the escape."""
    ans = pytest.importorskip("compressai.ans")
    benchmark.group = f"{way} given rans"
    share = np.cumsum(np.append(COUNTS, 0)) * (65536 - 257) // COUNT + np.arange(1, 258)
    cdf = [[0, *share.tolist()]]
    indexes = np.zeros(COUNT, np.int32)

    def encode() -> bytes:
        return bytes(ans.RansEncoder().encode_with_indexes(SYMBOLS.tolist(), indexes.tolist(), cdf, [258], [-OFFSET]))

    def decode(data: bytes) -> Any:
        return np.array(ans.RansDecoder().decode_with_indexes(data, indexes.tolist(), cdf, [258], [-OFFSET]), np.int32)

    if way == "encode":
        assert timed(benchmark, encode)
    else:
        assert np.array_equal(timed(benchmark, decode, encode()), SYMBOLS)
