"""Entropy stages: integers to bytes and back, lossless on any int32 array and with any prior."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component
from semcodec.hookspecs import hookimpl

STAGES = (
    ("rans", "arithmetic:Rans", "asymmetric numeral systems over integer tables: fast, next to the entropy"),
    ("range", "arithmetic:Range", "range coding over integer tables: as small as rans, a little slower"),
    ("huffman", "huffman:Huffman", "canonical Huffman code: a whole number of bits for each symbol"),
    ("deflate", "general_purpose:Deflate", "zlib's deflate on the narrowest bytes that hold the symbols"),
    ("zstd", "general_purpose:Zstd", "Zstandard on the narrowest bytes that hold the symbols"),
    ("pack", "pack:Pack", "bit packing at the narrowest width that holds the symbols: no modelling"),
)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    for name, target, summary in STAGES:
        yield Component("entropy", name, f"semcodec_plugins.entropy.{target}", summary)
