"""Entropy stages: integers to bytes and back, lossless on any int32 array and with any prior."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
EXCESS = {"rans": (0.01, 8), "range": (0.01, 8), "huffman": (1, 8)}
"""Bits a symbol and bytes a chunk that a stage may spend beyond an ideal code under the same prior."""
REMEDY = (
    "pip install constriction, which has no wheel for Linux on Arm and is built there by Rust (rustup.rs), or name "
    "huffman in its place"
)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of this package's components."""
    for name, target, summary in STAGES:
        traits: dict[str, Any] = {"excess": EXCESS[name]} if name in EXCESS else {}
        requires = ("constriction",) if target.startswith("arithmetic:") else ()
        if requires:
            traits = {**traits, "remedy": REMEDY}
        yield Component(
            "entropy", name, f"semcodec_plugins.entropy.{target}", summary, traits=traits, requires=requires
        )
