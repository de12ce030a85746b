"""Intervals and paired tests against published or independently computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semcodec.data.order0 import order0
from semcodec.tasks.statistics import Z95, paired, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # Mirrored
        (20, 20, 0.8389, 1.0),
        (182, 263, 0.6338, 0.7447),
    ],
)
def test_wilson(right, total, low, high):
    got = wilson(right, total)
    assert got[0] == pytest.approx(low, abs=5e-5)
    assert got[1] == pytest.approx(high, abs=5e-5)


def test_wilson_at_its_ends():
    assert wilson(0, 0) == (0.0, 1.0)
    for total in (1, 7, 1000):
        assert wilson(0, total)[0] == 0.0
        assert wilson(total, total)[1] == 1.0
        for right in range(0, total + 1, max(1, total // 7)):
            low, high = wilson(right, total)
            assert 0 <= low <= right / total <= high <= 1
            other_low, other_high = wilson(total - right, total)
            assert low == pytest.approx(1 - other_high, abs=1e-12)
            assert high == pytest.approx(1 - other_low, abs=1e-12)
    # The bounds are where the score test gives exactly z.
    low, high = wilson(30, 100)
    for bound in (low, high):
        assert abs(0.3 - bound) / math.sqrt(bound * (1 - bound) / 100) == pytest.approx(Z95)
    narrow, wide = wilson(30, 100, 1.0), wilson(30, 100, 3.0)
    assert wide[0] < low < narrow[0] < 0.3 < narrow[1] < high < wide[1]


def results(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Truth values of two methods: right together, right alone, wrong together."""
    return (
        [True] * (both + first) + [False] * (second + neither),
        [True] * both + [False] * first + [True] * second + [False] * neither,
    )


@pytest.mark.parametrize(
    ("table", "p"),
    [
        ((20, 12, 5, 63), 2 * sum(math.comb(17, k) for k in range(6)) / 2**17),
        ((0, 1, 9, 0), 22 / 1024),  # 2 * (1 + 10) / 2**10
        ((5, 0, 6, 5), 2 / 64),
        ((5, 4, 4, 5), 1.0),
        ((5, 0, 0, 5), 1.0),
        ((0, 0, 1, 0), 1.0),
    ],
)
def test_mcnemar(table, p):
    first, second = results(*table)
    assert paired(first, second)["p"] == pytest.approx(p, rel=1e-12)
    assert paired(second, first)["p"] == pytest.approx(p, rel=1e-12)


def test_mcnemar_is_the_binomial_test():
    scipy = pytest.importorskip("scipy.stats")
    for gained, lost in ((3, 11), (30, 18), (200, 260)):
        first, second = results(10, gained, lost, 10)
        expected = scipy.binomtest(gained, gained + lost).pvalue
        assert paired(first, second)["p"] == pytest.approx(expected, rel=1e-9)


def test_the_difference_and_its_interval():
    # The variance of a paired difference: (b + c - (b - c)**2 / n) / n**2.
    first, second = results(60, 25, 10, 5)
    got = paired(first, second)
    assert got["difference"] == pytest.approx(0.15)
    spread = 1.959964 * math.sqrt(35 - 15**2 / 100) / 100
    assert got["low"] == pytest.approx(0.15 - spread, abs=1e-6)
    assert got["high"] == pytest.approx(0.15 + spread, abs=1e-6)
    # The same by the sample variance of the differences.
    differences = [int(a) - int(b) for a, b in zip(first, second, strict=True)]
    variance = sum((d - 0.15) ** 2 for d in differences) / 100 / 100
    assert (got["high"] - got["low"]) / 2 == pytest.approx(Z95 * math.sqrt(variance))
    back = paired(second, first)
    assert back["difference"] == -got["difference"]
    assert (back["low"], back["high"]) == (-got["high"], -got["low"])


def test_equal_results_do_not_differ():
    right = [True, False, True]
    assert paired(right, right) == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert paired([True] * 3, [False] * 3)["difference"] == 1.0


def test_records_of_ones_and_zeros_serve_too():
    assert paired([1, 1, 0], [0, 1, 0])["difference"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [])])
def test_unequal_samples_are_refused(first, second):
    with pytest.raises(ValueError, match="equally many"):
        paired(first, second)


def test_order0_entropy_is_that_of_the_histogram():
    pixels = np.zeros((4, 256, 1, 3), np.uint8)
    pixels[..., 1] = np.arange(256)[:, None]
    pixels[:2, ..., 2] = 7
    assert order0(pixels) == [0.0, 8.0, 1.0]
