"""Integer tables of zero-mean Gaussians at logarithmic scales, made by integer arithmetic alone.

What predicts a scale predicts its index among ``SCALES``, so that equal indexes are equal tables on every machine. No
float function of a C library is involved, as these differ from one to the next in their last bits.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from functools import cache

import numpy as np

from semcodec.coding.tables import table_from_counts
from semcodec.priors import Table

SCALES = 64
LOWEST, HIGHEST = 0.11, 256.0
"""Standard deviations of the first and the last table, in steps of the integers; as in CompressAI."""
STEP = math.log(HIGHEST / LOWEST) / (SCALES - 1)
_COUNTED = 1 << 20  # what a table's counts sum to, about; integers rarer than half of one in this go through the escape
_BITS = 96
_TAIL = 6  # standard deviations, beyond which nothing is counted


@cache
def tables() -> tuple[Table, ...]:
    """One table for each scale, with an escape for every other int32."""
    context = Context(prec=40)  # Decimal's exp and ln are correctly rounded, so the same everywhere
    low, high = Decimal(str(LOWEST)), Decimal(str(HIGHEST))
    step = context.divide(context.ln(context.divide(high, low)), SCALES - 1)
    scales = (context.multiply(low, context.exp(context.multiply(step, i))) for i in range(SCALES))
    return tuple(_table(scale, context) for scale in scales)


def _table(scale: Decimal, context: Context) -> Table:
    """The probability of each integer is the integral over its unit interval, by Simpson's rule."""
    parts = 2 * max(1, math.ceil(4 / scale))  # intervals a unit: an even number, an eighth of a deviation or finer
    width = math.ceil(_TAIL * scale)
    # exp(-(j h)^2 / 2 s^2) for j = 0, 1, ...: each is the last times q^(2j+1), as fixed-point integers.
    exponent = context.divide(-1, context.multiply(2, context.power(context.multiply(scale, parts), 2)))
    q = int(context.multiply(context.exp(exponent), 1 << _BITS))
    square, ratio, density = q * q >> _BITS, q, 1 << _BITS
    densities = []
    for _ in range((2 * width + 1) * parts // 2 + 1):
        densities.append(density)
        density, ratio = density * ratio >> _BITS, ratio * square >> _BITS
    simpson = [1, *[4, 2] * (parts // 2 - 1), 4, 1]
    masses = [
        sum(weight * densities[abs(k * parts - parts // 2 + i)] for i, weight in enumerate(simpson))
        for k in range(width + 1)
    ]
    total = masses[0] + 2 * sum(masses[1:])
    counts = np.array([(mass * _COUNTED + total // 2) // total for mass in masses], np.int64)
    return table_from_counts(np.concatenate([counts[:0:-1], counts]), -width, escape=True)
