"""Checks of entropy stages: lossless, repeatable, and safe on bytes that they never wrote."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, lru_cache

import numpy as np

from semcodec.coding.tables import table_from_counts, table_from_symbols
from semcodec.component import Component
from semcodec.errors import CorruptStream, SemcodecError
from semcodec.interfaces import EntropyStage
from semcodec.priors import Bits, Counted, Indexed, Int32, Prior, Table
from semcodec.testing.side_effects import witness
from semcodec.testing.subject import Act, Subject, require, settings

INT32 = np.iinfo(np.int32)
LONG, ENOUGH = 1 << 20, 1 << 21
"""Symbols of a long array, and bytes of memory that decoding one of them may take: tables, but not all of them."""
SHORT = 200
"""Symbols of an array that are enough where only sameness is asked."""


def checks(component: Component) -> Iterator[Callable[[Subject], None]]:
    """The checks of entropy stages, in the order in which a failure is best understood."""
    yield check_builds
    yield check_round_trip
    yield check_repeatable
    yield check_long
    yield check_side_bytes
    if "excess" in component.traits:
        yield check_size
    yield check_damage


def acts(subject: Subject) -> list[Act]:
    """Short arrays under every prior that has room for them, coded and decoded."""

    def do(stage: EntropyStage, number: int) -> bytes:
        coded = b""
        for symbols in arrays().values():
            shifted = np.roll(symbols[:SHORT], number)
            for prior in priors(shifted):
                if possible(shifted, prior):
                    data = stage.encode(shifted.copy(), prior)
                    coded += data + stage.decode(data, prior, len(shifted)).tobytes()
        return coded

    return [Act("symbols", stage, do) for stage, _ in _stages(subject)]


def check_builds(subject: Subject) -> None:
    """It is made at each choice of its parameters."""
    _stages(subject)


def check_round_trip(subject: Subject) -> None:
    """Every array comes back as it was from another instance, under every prior that has room for it.

    Symbols that a prior rules out (a table without an escape, too few bits) come back too or are refused.
    """
    for stage, other in _stages(subject):
        for name, symbols in arrays().items():
            for prior in priors(symbols):
                what, given = f"{name} under {_describe(prior)}", symbols.copy()
                try:
                    data = stage.encode(symbols[:], prior)
                except SemcodecError as error:
                    require(not possible(symbols, prior), f"{what} is refused: {error}")
                    continue
                require(type(data) is bytes, f"{what} is coded to {type(data).__name__}, not bytes")
                decoded = other.decode(data, prior, len(symbols))
                _require_symbols(decoded, len(symbols), what)
                require(np.array_equal(decoded, given), f"{what} does not come back as it was")


def check_repeatable(subject: Subject) -> None:
    """The same symbols give the same bytes, whatever was coded before; what is given is not altered, nor what was
    decoded before.
    """
    for stage, other in _stages(subject):
        for name, symbols, prior, data in _coded(stage):
            described = _octets(prior)
            for instance in (stage, other):
                given = symbols.copy()
                again = instance.encode(given, prior)
                require(np.array_equal(given, symbols), f"encoding {name} alters the symbols")
                require(again == data, f"{name} is not coded to the same bytes again")
            buffer = bytes(bytearray(data))
            decoded = stage.decode(buffer, prior, len(symbols))
            require(buffer == data, f"decoding {name} alters the bytes")
            require(_octets(prior) == described, f"coding {name} alters the prior")
            kept, turned = decoded.copy(), np.roll(symbols, 1)
            if possible(turned, prior):
                stage.decode(stage.encode(turned, prior), prior, len(turned))
                require(np.array_equal(decoded, kept), f"{name}: what was decoded changes when more is")


def check_long(subject: Subject) -> None:
    """A million symbols come back; a decoder that is asked for one of them takes memory for one.

    Memory is what Python and numpy count of their own.
    """
    for stage, _ in _stages(subject):
        for prior in (Counted(), _tables()[0]):
            symbols = np.zeros(LONG, np.int32)
            symbols[:: LONG // 8] = 1
            data, what = stage.encode(symbols.copy(), prior), f"{LONG:,} symbols under {_describe(prior)}"
            decoded = stage.decode(data, prior, LONG)
            require(np.array_equal(decoded, symbols), f"{what} do not come back as they were")
            tracemalloc.start()
            try:
                with suppress(Exception):  # how it fails is what check_damage looks at
                    stage.decode(data, prior, 1)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            require(peak <= ENOUGH, f"decoding one of {what} takes {peak:,} bytes of memory")


def check_side_bytes(subject: Subject) -> None:
    """Tables are part of the bytes: between none and all of them."""
    for stage, _ in _stages(subject):
        for name, _, prior, data in _coded(stage):
            side = stage.side_bytes(data, prior)
            require(0 <= side <= len(data), f"{name}: {side} of {len(data)} bytes are said to be tables")


def check_size(subject: Subject) -> None:
    """The declared bound holds, trait ``excess``: bits a symbol and bytes beyond an ideal code under static priors."""
    for stage, _ in _stages(subject):
        a_symbol, a_chunk = subject.component.traits["excess"]
        for name, symbols in arrays().items():
            for prior in priors(symbols):
                ideal = ideal_bytes(symbols, prior)
                if ideal is None:
                    continue
                data = stage.encode(symbols.copy(), prior)
                bound = ideal + a_symbol * len(symbols) / 8 + a_chunk
                size = len(data) - stage.side_bytes(data, prior)
                what = f"{name} under {_describe(prior)}"
                require(size <= bound, f"{what} takes {size} bytes beside its tables, more than {bound:.1f}")


def check_damage(subject: Subject) -> None:
    """Truncated, flipped, lengthened and random bytes end in CorruptStream or in as many int32 as were asked for."""
    for stage, _ in _stages(subject):
        for name, symbols, prior, data in _coded(stage):
            for what, damaged in damages(data):
                _decode_damaged(stage, damaged, prior, len(symbols), f"{name}, {what}")
            if not isinstance(prior, Indexed):
                _decode_damaged(stage, data, prior, len(symbols) + 1, f"{name}, one symbol too many asked for")
                _decode_damaged(stage, data, prior, max(0, len(symbols) - 1), f"{name}, one too few asked for")


def _decode_damaged(stage: EntropyStage, data: bytes, prior: Prior, count: int, what: str) -> None:
    try:
        decoded = stage.decode(data, prior, count)
    except CorruptStream:
        return
    except Exception as error:
        raise AssertionError(f"{what}, {_describe(prior)}: {type(error).__name__}, not CorruptStream") from error
    _require_symbols(decoded, count, what)


def _require_symbols(decoded: Int32, count: int, what: str) -> None:
    right = isinstance(decoded, np.ndarray) and decoded.dtype == np.int32 and decoded.shape == (count,)
    require(right, f"{what} is decoded to {getattr(decoded, 'dtype', type(decoded))}, not to {count} int32")


def damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(what was done, the damaged bytes): a few dozen, the same ones every time."""
    rng = np.random.default_rng(len(data))
    starts = {*range(min(10, len(data))), *rng.integers(0, max(1, len(data)), 6).tolist()}
    for at in sorted(starts):
        yield f"cut after {at} bytes", data[:at]
        if at < len(data):
            flipped = bytearray(data)
            flipped[at] ^= 1 << int(rng.integers(8))
            yield f"byte {at} flipped", bytes(flipped)
    yield "lengthened", data + b"\1\0"
    yield "all ones", b"\xff" * max(4, len(data))
    yield "all zeros", bytes(max(4, len(data)))
    for size in (1, 7, 33, len(data)):
        yield f"{size} random bytes", rng.bytes(size)


def arrays() -> dict[str, Int32]:
    """Symbols of every range and size that stages tend to get wrong."""
    rng = np.random.default_rng(0)
    small = np.round(rng.laplace(0, 6, 3000)).astype(np.int32)
    return {
        "nothing": np.zeros(0, np.int32),
        "one symbol": np.array([-7], np.int32),
        "a constant": np.full(700, 5, np.int32),
        "the lowest int32": np.full(90, INT32.min, np.int32),
        "two symbols": (small > 0).astype(np.int32),
        "small symbols": small,
        "every other symbol of an array": small[::2],
        "octets": rng.integers(0, 256, 2000).astype(np.int32),
        "all of int16": rng.permutation(np.arange(-32768, 32768)).astype(np.int32),
        "all over int32": rng.integers(INT32.min, INT32.max, 1500, endpoint=True).astype(np.int32),
        "the ends of int32": np.array([INT32.min, INT32.max, 0, -1, INT32.min], np.int32),
    }


def priors(symbols: Int32) -> Iterator[Prior]:
    """Every kind of prior, for as many symbols: tables that fit, that fit badly, that have one symbol."""
    fitting, wide, certain, bare, even = _tables()
    tables = (fitting, wide, certain, even)
    yield Counted()
    yield from (fitting, wide, certain, bare)
    yield Indexed(tables[:1], np.zeros(len(symbols), np.int64))
    yield Indexed(tables, np.random.default_rng(1).integers(0, len(tables), len(symbols)))
    yield from (Bits(1), Bits(8), Bits(32))


@cache
def _tables() -> tuple[Table, ...]:
    """Made once: an Encoder keeps its tables too, so stages may remember what they derive from one."""
    rng = np.random.default_rng(1)
    return (
        table_from_symbols(np.round(rng.laplace(0, 6, 4000)).astype(np.int32)),
        table_from_counts(rng.integers(1, 50, 700), -350, escape=True),
        Table(5, np.array([1 << 10], np.uint32)),
        table_from_counts(rng.integers(0, 9, 64) + (np.arange(64) % 3 == 0), -20),
        table_from_counts([1, 1], 0, escape=True),
    )


def possible(symbols: Int32, prior: Prior) -> bool:
    """Whether the prior gives every one of the symbols a probability."""
    if isinstance(prior, Counted):
        return True
    if isinstance(prior, Bits):
        return not len(symbols) or (int(symbols.min()) >= 0 and int(symbols.max()) >> prior.width == 0)
    if isinstance(prior, Indexed):
        return all(possible(symbols[prior.index == i], table) for i, table in enumerate(prior.tables))
    entries = prior.freqs[:-1] if prior.escape else prior.freqs
    places = symbols.astype(np.int64) - prior.offset
    inside = (places >= 0) & (places < len(entries))
    return bool(prior.escape and prior.freqs[-1]) or bool((inside & (entries[places * inside] > 0)).all())


def ideal_bytes(symbols: Int32, prior: Prior) -> float | None:
    """What an ideal coder spends under a static prior; None for others, symbols ruled out, or through an escape."""
    if isinstance(prior, Bits):
        return len(symbols) * prior.width / 8 if possible(symbols, prior) else None
    if isinstance(prior, Counted):
        return None
    if isinstance(prior, Indexed):
        parts = [ideal_bytes(symbols[prior.index == i], table) for i, table in enumerate(prior.tables)]
        return None if None in parts else float(sum(part or 0.0 for part in parts))
    places = symbols.astype(np.int64) - prior.offset
    entries = prior.freqs[:-1] if prior.escape else prior.freqs
    if not ((places >= 0) & (places < len(entries))).all() or not entries[places].all():
        return None
    return float((prior.precision - np.log2(entries[places])).sum()) / 8


def _coded(stage: EntropyStage) -> Iterator[tuple[str, Int32, Prior, bytes]]:
    """(name, symbols, prior, bytes) of what the stage codes, without the longest array."""
    for name, symbols in arrays().items():
        for prior in priors(symbols) if len(symbols) <= 3000 else ():
            if possible(symbols, prior):
                yield f"{name} under {_describe(prior)}", symbols, prior, stage.encode(symbols.copy(), prior)


@lru_cache(maxsize=1)
def _stages(subject: Subject) -> tuple[tuple[EntropyStage, EntropyStage], ...]:
    """Two instances at each setting: stages are stateless, so one reads what the other wrote."""
    build = [p for p in subject.component.params if p.when == "build"]
    with witness(subject.heard):
        return tuple((subject.make(**setting), subject.make(**setting)) for setting in settings(build))


def _octets(prior: Prior) -> bytes:
    """What the arrays of a prior hold."""
    if isinstance(prior, Indexed):
        return prior.index.tobytes() + b"".join(map(_octets, prior.tables))
    return prior.freqs.tobytes() if isinstance(prior, Table) else b""


def _describe(prior: Prior) -> str:
    if isinstance(prior, Bits):
        return f"{prior.width} bits"
    if isinstance(prior, Indexed):
        return f"{len(prior.tables)} tables by index"
    if isinstance(prior, Table):
        return f"a table of {len(prior.freqs)}{' with an escape' if prior.escape else ''}"
    return "a counted histogram"
