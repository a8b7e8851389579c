# SPDX-License-Identifier: Apache-2.0
"""The cut-offs of the health tests, against published values, exact fractions and SciPy."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from scipy import stats

from qr_sampler.health.cutoffs import (
    WINDOW,
    binomial_tail,
    most_frequent_cutoff,
    proportion_cutoff,
    repetition_cutoff,
)

ALPHA_BITS = (20, 30, 40, 60)

PUBLISHED = [
    # H, window, repetition, proportion; the values at H = 1 and W = 512 are those of jitterentropy.
    (1.0, 1024, (21, 31, 41, 61), (590, 609, 626, 653)),
    (0.8, 1024, (26, 39, 51, 76), (664, 683, 699, 726)),
    (0.5, 1024, (41, 61, 81, 121), (793, 810, 824, 847)),
    (1.0, 512, (21, 31, 41, 61), (311, 325, 337, 355)),
    (8.0, 512, (4, 5, 6, 9), (14, 17, 20, 26)),
    (7.5, 512, (4, 5, 7, 9), (16, 20, 23, 29)),
    (6.0, 512, (5, 6, 8, 11), (26, 32, 36, 45)),
]


@pytest.mark.parametrize(("entropy", "window", "runs", "counts"), PUBLISHED)
def test_cutoffs_are_the_published_ones(
    entropy: float, window: int, runs: tuple[int, ...], counts: tuple[int, ...]
) -> None:
    assert tuple(repetition_cutoff(entropy, bits) for bits in ALPHA_BITS) == runs
    assert tuple(proportion_cutoff(entropy, bits, window) for bits in ALPHA_BITS) == counts


@pytest.mark.parametrize(("n", "k"), [(511, 2), (511, 19), (511, 400), (1023, 652), (10239, 98)])
@pytest.mark.parametrize("p", [Fraction(1, 256), Fraction(1, 64), Fraction(1, 2)])
def test_tail_is_the_exact_sum(n: int, k: int, p: Fraction) -> None:
    if k < n * p:
        pytest.skip("below the mean the sum is not used")
    hits, of = p.numerator, p.denominator
    # Over the common denominator: sums of fractions would be reduced at every term.
    exact = sum(
        comb(n, i) * hits**i * (of - hits) ** (n - i) for i in range(k, min(n, k + 400) + 1)
    )
    assert binomial_tail(k, n, float(p)) == pytest.approx(float(Fraction(exact, of**n)), rel=1e-10)


@pytest.mark.parametrize("bits", ALPHA_BITS)
@pytest.mark.parametrize("entropy", [8.0, 7.5, 6.0, 1.0, 0.5])
def test_cutoffs_are_the_first_that_scipy_calls_rare(entropy: float, bits: int) -> None:
    law = stats.binom(WINDOW - 1, 2.0**-entropy)
    further = proportion_cutoff(entropy, bits) - 2
    assert law.sf(further) <= 2.0**-bits < law.sf(further - 1)
    n = 10_239
    most = most_frequent_cutoff(n, entropy, bits)
    law = stats.binom(n, 2.0**-entropy)
    assert 256 * law.sf(most - 1) <= 2.0**-bits < 256 * law.sf(most - 2)


def test_a_test_that_could_never_fail_is_refused() -> None:
    with pytest.raises(ValueError, match="could never fail"):
        proportion_cutoff(0.1, 60)
    with pytest.raises(ValueError, match="greater than 0"):
        repetition_cutoff(0.0, 20)
    with pytest.raises(ValueError, match="greater than 0"):
        most_frequent_cutoff(511, float("nan"), 20)


@pytest.mark.parametrize(("size", "days", "years"), [(10_240, 25, 1e6), (64, 11 * 365, 1e8)])
def test_good_sources_alarm_as_seldom_as_the_page_of_health_says(
    size: int, days: float, years: float
) -> None:
    """By the union bound over the ends of runs, and over windows, of 50 tokens a second."""

    def per_draw(bits: int) -> float:
        run, count = repetition_cutoff(8.0, bits), proportion_cutoff(8.0, bits)
        # A run of that length begins where the byte before is another one.
        of_runs = size * 255 / 256 * 256.0 ** (1 - run)
        return float(of_runs + size / WINDOW * stats.binom(WINDOW - 1, 1 / 256).sf(count - 2))

    tokens_a_day = 50 * 86_400
    assert 1 / (per_draw(40) * tokens_a_day) == pytest.approx(days, rel=0.02)
    assert 1 / (per_draw(60) * tokens_a_day) > 365 * years
