"""Priors of coefficients: two-sided geometric distributions, p(q) ~ r^|q|, from narrow to wide.

Both ends make them, so they are made of integers alone: a power of a float may differ in its last bit from one machine
to the next, and an entropy decoder with another table gives other symbols without a word.
"""

from functools import cache

import numpy as np
from semcodec.coding.tables import table_from_counts

RATIOS = (0, 1, 2, 4, 7, 12, 19, 29, 42, 58, 77, 98, 120, 142, 163, 182, 199, 213, 225, 234, 241, 246, 250, 252, 254)
"""r in 256ths."""
REACH = 127
"""Coefficients beyond it go through the escape."""
UNIT = 1 << 24


@cache
def tables():
    """One table for each ratio, from narrow to wide."""
    return tuple(table(ratio) for ratio in RATIOS)


def table(ratio):
    """A two-sided geometric distribution, by integer arithmetic alone: the same on every machine."""
    counts = [UNIT]
    while len(counts) <= REACH:
        counts.append(counts[-1] * ratio // 256)
    return table_from_counts(counts[:0:-1] + counts, -REACH, escape=True)


@cache
def costs():
    """Bits of |q| = 0 .. REACH and of an escape, (tables, REACH + 2): for choosing a table, never for coding."""
    found = np.empty((len(RATIOS), REACH + 2))
    for row, one in zip(found, tables(), strict=True):
        bits = one.precision - np.log2(np.maximum(one.freqs, 1e-3))
        row[: REACH + 1], row[REACH + 1] = bits[REACH:-1], bits[-1] + 32
    return found
