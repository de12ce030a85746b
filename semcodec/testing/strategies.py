"""Hypothesis strategies for what passes between stages: specs, symbols with priors, streams.

    >>> from hypothesis import given
    >>> from semcodec.testing import strategies
    >>> @given(strategies.coded())
    ... def test_lossless(drawn):
    ...     symbols, prior = drawn
    ...     assert (stage.decode(stage.encode(symbols, prior), prior, len(symbols)) == symbols).all()

Needs Hypothesis, which nothing else in the package does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from semcodec.coding.tables import table_from_counts
from semcodec.component import KINDS
from semcodec.composition.grammar import Arg, Item, Spec
from semcodec.container.packets import LocalRecord, Part, StreamHeader
from semcodec.errors import PluginError
from semcodec.priors import Bits, Counted, Indexed, Int32, Prior, Table

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ImportError as error:
    raise PluginError("semcodec.testing.strategies needs Hypothesis: pip install hypothesis") from error

__all__ = ["coded", "headers", "items", "names", "parts", "priors", "records", "specs", "symbols", "tables", "values"]

LOW, HIGH = -(1 << 31), (1 << 31) - 1
_LOWER = "abcxyz"
_ODD = ["true", "1e3", "+5", "a+b", "", "1+2", "-", "'", '"', "\\", "a=b", "a,b", "@"]
_DTYPES = ["float32", "uint8", "int64"]


# -- specs -----------------------------------------------------------------------------------------------------------


def _words() -> SearchStrategy[str]:
    part = st.builds(str.__add__, st.sampled_from(_LOWER), st.text(_LOWER + "019", max_size=4))
    return st.lists(part, min_size=1, max_size=3).map("-".join)


def names() -> SearchStrategy[str]:
    """Names of components, members of families among them. None is known to any registry."""
    families = st.builds("{}/{}".format, _words().filter(lambda word: word not in KINDS), _words())
    return st.one_of(_words(), families)


def values() -> SearchStrategy[bool | int | float | str]:
    """Values of parameters: all that a spec can hold, odd words that look like something else too."""
    return st.one_of(
        st.booleans(),
        st.integers(-(10**18) + 1, 10**18 - 1),
        st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),  # -0.0 reads back as 0.0
        st.text(max_size=8),
        st.sampled_from(_ODD),
    )


def items() -> SearchStrategy[Item]:
    """Single components with kind, target and arguments."""
    keys = st.one_of(st.none(), _words())
    return st.builds(
        Item,
        name=names(),
        kind=st.one_of(st.none(), st.sampled_from(KINDS)),
        target=st.one_of(st.none(), st.sampled_from(["input", "layer1.0", "5", "frames", "C3_k"])),
        args=st.dictionaries(keys, values(), max_size=4).map(lambda d: tuple(Arg(k, v) for k, v in d.items())),
    )


def specs() -> SearchStrategy[Spec]:
    """Specs of one to four components: right in form, without a meaning."""
    return st.lists(items(), min_size=1, max_size=4).map(lambda found: Spec(tuple(found)))


# -- symbols ---------------------------------------------------------------------------------------------------------


def symbols(max_size: int = 80) -> SearchStrategy[Int32]:
    """1-D int32 arrays of small, of middle and of any values."""
    ranges = [(-6, 6), (-400, 400), (LOW, HIGH)]
    lists = [st.lists(st.integers(low, high), max_size=max_size) for low, high in ranges]
    return st.one_of(*lists).map(lambda drawn: np.array(drawn, np.int32))


@st.composite
def tables(draw: st.DrawFn, escape: bool | None = None) -> Table:
    """Static tables of a few entries, some of them zero. escape: whether any other int32 has a code, drawn if None."""
    counts = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=40).filter(any))
    offset = draw(st.one_of(st.integers(-50, 50), st.integers(LOW, HIGH - len(counts))))
    return table_from_counts(np.array(counts), offset, escape=draw(st.booleans()) if escape is None else escape)


@st.composite
def priors(draw: st.DrawFn, count: int, escape: bool | None = True) -> Prior:
    """Every kind of prior for ``count`` symbols; every int32 can be coded where ``escape`` is true."""
    kind = draw(st.sampled_from(["counted", "table", "indexed", "bits"]))
    if kind == "counted":
        return Counted()
    if kind == "table":
        return draw(tables(escape))
    if kind == "bits":
        return Bits(32 if escape else draw(st.integers(1, 32)))
    several = draw(st.lists(tables(escape), min_size=1, max_size=4))
    index = draw(st.lists(st.integers(0, len(several) - 1), min_size=count, max_size=count))
    return Indexed(tuple(several), np.array(index, np.int64))


@st.composite
def coded(draw: st.DrawFn, max_size: int = 80) -> tuple[Int32, Prior]:
    """Symbols and a prior that has a code for each: what every entropy stage gives back as it was."""
    array = draw(symbols(max_size))
    prior = draw(priors(len(array)))
    return (np.abs(array.astype(np.int64)).clip(0, HIGH).astype(np.int32) if isinstance(prior, Bits) else array), prior


# -- streams ---------------------------------------------------------------------------------------------------------


def _scalars() -> SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.floats(allow_nan=False),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
    )


def headers() -> SearchStrategy[StreamHeader]:
    """Stream headers of a component or two, with call parameters of every type."""
    shapes = st.lists(st.one_of(st.none(), st.integers(0, 1 << 20)), max_size=4).map(tuple)
    return st.builds(
        StreamHeader,
        spec=specs().map(str).filter(str.isprintable).filter(str.isascii),
        components=st.dictionaries(st.builds("encoder/{}".format, names()), st.integers(0, 9), max_size=2),
        weights=st.dictionaries(st.sampled_from(["encoder", "recoverer"]), st.just("0123abcd"), max_size=2),
        input=st.dictionaries(_words(), st.tuples(shapes, st.sampled_from(_DTYPES)), max_size=2),
        params=st.dictionaries(_words(), _scalars(), max_size=4),
        package=st.just("0.1.0"),
    )


def parts() -> SearchStrategy[list[Part]]:
    """Chunks of a packet, in any number of layers."""
    one = st.builds(Part, name=_words(), data=st.binary(max_size=40), side=st.booleans(), ends_layer=st.booleans())
    return st.lists(one, min_size=1, max_size=6)


@st.composite
def records(draw: st.DrawFn, header: StreamHeader) -> tuple[int, dict[str, Any], list[Part]] | LocalRecord:
    """Of a stream with this header: a packet as (sequence, call parameters, chunks), or a sample kept on the device."""
    sequence = draw(st.integers(0, (1 << 63) - 1))
    if draw(st.booleans()):
        probability = draw(st.floats(0, 1, width=32))
        return LocalRecord(sequence, draw(st.integers(0, (1 << 63) - 1)), probability)
    some = draw(st.lists(st.sampled_from(sorted(header.params)), unique=True)) if header.params else []
    return sequence, {name: draw(_scalars()) for name in some}, draw(parts())
