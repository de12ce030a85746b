"""Symbols and priors of the golden payloads of entropy stages, one for each kind of prior and way to code."""

from __future__ import annotations

import numpy as np

from semcodec.priors import Bits, Counted, Indexed, Prior, Table


def made() -> dict[str, np.ndarray]:
    """By case, the symbols; and under other names the numbers of its prior. Only ever used to add a case."""
    rng = np.random.default_rng(20)
    narrow = np.round(rng.laplace(0, 3, 700)).astype(np.int32)
    freqs = np.array([1, 1, 2, 4, 8, 20, 60, 64, 56, 20, 10, 5, 3, 1, 1], np.uint32)
    index = np.repeat(np.arange(3), 250)[rng.permutation(750)].astype(np.uint8)
    return {
        "counted": narrow,
        "counted-constant": np.full(40, -9, np.int32),
        "counted-wide": np.round(rng.laplace(0, 400, 700)).astype(np.int32),
        "counted-int32": rng.integers(-(2**31), 2**31, 60).astype(np.int32),
        "table": np.clip(narrow, -7, 7).astype(np.int32),
        "table.freqs": freqs,
        "escape": np.r_[np.clip(narrow, -7, 6), [900, -(2**31), 2**31 - 1]].astype(np.int32),
        "escape.freqs": freqs,
        "indexed": np.where(index == 2, 5, np.clip(np.round(rng.laplace(0, 1 + index)), -7, 7)).astype(np.int32),
        "indexed.index": index,
        "indexed.freqs": freqs,
        "bits": rng.integers(0, 2, 333).astype(np.int32),
        "bits-5": rng.integers(0, 32, 101).astype(np.int32),
    }


CASES = tuple(name for name in made() if "." not in name)


def prior_of(case: str, arrays: dict[str, np.ndarray]) -> Prior:
    """The prior of a case, from stored numbers alone."""
    if case.startswith("counted"):
        return Counted()
    if case.startswith("bits"):
        return Bits(5 if case == "bits-5" else 1)
    freqs = arrays[f"{case}.freqs"]
    table = Table(-7, freqs, escape=case == "escape")
    if case != "indexed":
        return table
    certain = Table(5, np.array([1 << 12], np.uint32))
    return Indexed((table, Table(-7, freqs[::-1].copy(), escape=True), certain), arrays["indexed.index"])
