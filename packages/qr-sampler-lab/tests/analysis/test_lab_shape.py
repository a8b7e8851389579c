# SPDX-License-Identifier: Apache-2.0
"""Laws: SciPy, published tables, numerical inversion, and exact enumeration of small blocks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from qr_sampler import BitZScoreAmplifier
from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import (
    EmpiricalLaw,
    LatticeLaw,
    Moments,
    Visibility,
    anderson_darling,
    kolmogorov_smirnov,
    tail_test,
    two_sample_ks,
    variance_ratio_test,
    variance_test,
)
from qr_sampler_lab.analysis.shape import anderson_darling_p_value


def law_of(values: object, *, keep: int = 2**17) -> EmpiricalLaw:
    law = EmpiricalLaw(keep=keep)
    for chunk in np.array_split(values, 3):
        law.add(chunk)
    return law


def moments_of(values: object) -> Moments:
    moments = Moments()
    moments.add(values)
    return moments


@pytest.mark.parametrize("n", [1, 2, 7, 60, 3_000])
def test_kolmogorov_smirnov_equals_scipys(n: int) -> None:
    u = np.random.default_rng(n).random(n) ** 1.1
    result, oracle = kolmogorov_smirnov(law_of(u)), stats.ks_1samp(u, stats.uniform.cdf)
    assert result.statistic == pytest.approx(oracle.statistic, rel=1e-12)
    assert result.p_value == pytest.approx(oracle.pvalue, rel=1e-9)


def test_kolmogorov_smirnov_of_two_numbers_by_hand() -> None:
    # P(D <= d) for n = 2 and 1/4 <= d <= 1/2 is 2 (2 d - 1/2)**2.
    result = kolmogorov_smirnov(law_of(np.array([0.35, 0.6])))
    assert result.statistic == pytest.approx(0.4)
    assert result.p_value == pytest.approx(1 - 2 * (0.8 - 0.5) ** 2)


@pytest.mark.parametrize("sizes", [(30, 70), (4_000, 11_000)])
def test_two_samples_equal_scipys(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    arm, control = rng.random(sizes[0]) ** 1.02, rng.random(sizes[1])
    oracle = stats.ks_2samp(arm, control)
    result = two_sample_ks(law_of(arm), law_of(control))
    assert (result.statistic, result.p_value) == (oracle.statistic, oracle.pvalue)
    # Counted in cells the limiting law is used; D moves by less than a cell holds.
    counted = two_sample_ks(law_of(arm, keep=0), law_of(control))
    assert counted.statistic == pytest.approx(oracle.statistic, abs=2 / min(sizes))
    limit = stats.ks_2samp(arm, control, method="asymp").pvalue
    assert counted.p_value == pytest.approx(limit, rel=0.1)


def test_cells_and_numbers_agree() -> None:
    u = np.random.default_rng(6).random(50_000)
    kept, counted = law_of(u), law_of(u, keep=1_000)
    assert kept.is_exact
    assert not counted.is_exact
    assert counted.n == 50_000
    assert (kept.counts() == counted.counts()).all()
    for test in (kolmogorov_smirnov, anderson_darling):
        assert test(counted).statistic == pytest.approx(test(kept).statistic, rel=0.01)
    assert tail_test(counted) == tail_test(kept)
    with pytest.raises(ConfigError, match="counted, not kept"):
        counted.sorted()


@pytest.mark.parametrize("seed", range(5))
def test_anderson_darling_is_its_integral(seed: int) -> None:
    u = np.sort(np.random.default_rng(seed).random(6))

    def integrand(x: float) -> float:
        return float((np.searchsorted(u, x) / 6 - x) ** 2 / (x * (1 - x)))

    edges = [0.0, *u.tolist(), 1.0]
    pieces = (integrate.quad(integrand, a, b)[0] for a, b in itertools.pairwise(edges))
    assert anderson_darling(law_of(u)).statistic == pytest.approx(6 * sum(pieces), rel=1e-6)


# Percentage points of the fully specified case: Anderson and Darling (1954) and Stephens, EDF
# statistics for goodness of fit and some comparisons (1974), table 1.
@pytest.mark.parametrize(
    ("point", "p_value"), [(1.933, 0.10), (2.492, 0.05), (3.070, 0.025), (3.880, 0.01)]
)
def test_anderson_darling_has_the_published_percentage_points(point: float, p_value: float) -> None:
    assert anderson_darling_p_value(point, 10**6) == pytest.approx(p_value, rel=1e-2)


def inverted(z: float) -> float:
    """P(sum of chi-squares / (j (j + 1)) > z) by Imhof's inversion (1961), 400 terms of it.

    The remaining terms are replaced by their mean, 1 / 401.
    """
    weights = 1.0 / (np.arange(1, 401) * np.arange(2, 402))
    z -= 1.0 / 401.0

    def integrand(t: float) -> float:
        angle = 0.5 * float(np.arctan(weights * t).sum()) - 0.5 * z * t
        size = math.exp(0.25 * float(np.log1p((weights * t) ** 2).sum()))
        return math.sin(angle) / (t * size)

    pieces = ((1e-9, 20.0), *((low, low + 20.0) for low in np.arange(20.0, 400.0, 20.0)))
    total = sum(integrate.quad(integrand, *piece, limit=200)[0] for piece in pieces)
    return 0.5 + total / math.pi


@pytest.mark.parametrize("z", [0.5, 1.5, 3.99, 4.01, 8.0])
def test_anderson_darling_has_the_inverted_law(z: float) -> None:
    assert anderson_darling_p_value(z, 10**9) == pytest.approx(inverted(z), rel=2e-3, abs=1e-5)


def test_anderson_darling_of_one_number_is_nearly_exact() -> None:
    # A**2 = -1 - log u (1 - u) exceeds z for u outside of the roots of u (1 - u) = exp(-1 - z).
    for u in (0.02, 0.1):
        result = anderson_darling(law_of(np.array([u])))
        assert result.p_value == pytest.approx(2 * u, rel=0.02)
        assert "approximate" in result.notes[0]
    assert anderson_darling_p_value(0.0, 1) == 1.0


@pytest.mark.parametrize("n", [5, 400])
def test_variance_of_normal_numbers_is_the_chi_square_test(n: int) -> None:
    values = np.random.default_rng(n).normal(0.0, 1.3, n)
    squares = (n - 1) * values.var(ddof=1)
    p_value = 2 * min(stats.chi2.sf(squares, n - 1), stats.chi2.cdf(squares, n - 1))
    result = variance_test(moments_of(values))
    assert result.p_value == pytest.approx(p_value, rel=1e-9)
    low, high = squares / stats.chi2.isf(0.025, n - 1), squares / stats.chi2.ppf(0.025, n - 1)
    assert (result.interval.low, result.interval.high) == pytest.approx((low, high))


def test_ratio_of_variances_is_the_f_test() -> None:
    rng = np.random.default_rng(8)
    arm, control = rng.normal(0, 1.2, 30), rng.normal(0, 1, 50)
    ratio = arm.var(ddof=1) / control.var(ddof=1)
    p_value = 2 * min(stats.f.sf(ratio, 29, 49), stats.f.cdf(ratio, 29, 49))
    result = variance_ratio_test(moments_of(arm), moments_of(control))
    assert (result.statistic, result.p_value) == pytest.approx((ratio, p_value))
    bounds = ratio / stats.f.isf(0.025, 29, 49), ratio / stats.f.ppf(0.025, 29, 49)
    assert (result.interval.low, result.interval.high) == pytest.approx(bounds)


def test_variance_of_u_has_the_moments_of_its_own_law() -> None:
    rng = np.random.default_rng(9)
    variances = rng.random((20_000, 50)).var(axis=1, ddof=1) * 12
    # 1 / 180 is the fourth central moment less the squared variance of a uniform number.
    expected = 144 * (1 / 180 / 50 + 2 / (144 * 50 * 49))
    assert variances.var() == pytest.approx(expected, rel=0.05)
    result = variance_test(moments_of(rng.random(50)), deviation=12**-0.5, excess_kurtosis=-1.2)
    assert 2 / (result.statistic / result.effect) == pytest.approx(expected, rel=1e-9)


def test_tails_are_counted_by_the_binomial_law() -> None:
    u = np.concatenate([np.full(3, 0.001), np.full(2, 0.999), np.full(95, 0.5)])
    result = tail_test(law_of(u))
    assert result.statistic == 5
    law = stats.binom.pmf(np.arange(101), 100, 1 / 64)
    assert result.p_value == pytest.approx(law[law <= law[5] * (1 + 1e-7)].sum())


@pytest.mark.parametrize("weights", [(1,) * 8, tuple(2**k for k in range(8))])
def test_transformed_counts_have_the_enumerated_law(weights: tuple[int, ...]) -> None:
    """All 65,536 blocks of two bytes: centre and mass of every atom, and a uniform law."""
    of_bytes = len(set(weights)) > 1
    law = LatticeLaw.of_bytes(2) if of_bytes else LatticeLaw.of_bits(2)
    single = np.array(
        [sum(w for k, w in enumerate(weights) if byte >> k & 1) for byte in range(256)]
    )
    counts = (single[:, None] + single[None, :]).ravel()
    atoms, hits = np.unique(counts, return_counts=True)
    below = np.cumsum(hits) - hits
    u = np.stack([law.transform(atoms, np.random.default_rng(seed)) for seed in range(50)])
    assert ((u * 65_536 > below - 1e-6) & (u * 65_536 < below + hits + 1e-6)).all()
    assert (
        kolmogorov_smirnov(law_of(law.transform(counts, np.random.default_rng(1)))).p_value > 0.01
    )
    z = (counts - counts.mean()) / counts.std()
    assert law.excess_kurtosis == pytest.approx((z**4).mean() - 3.0, abs=1e-12)
    assert law.deviation == pytest.approx(counts.std())


def test_the_exact_law_sees_what_is_there_and_nothing_else() -> None:
    rng, law = np.random.default_rng(11), LatticeLaw.of_bits(64)
    ideal, biased = rng.binomial(512, 0.5, 40_000), rng.binomial(512, 0.502, 40_000)
    p_values = [
        kolmogorov_smirnov(law_of(law.transform(ones, rng))).p_value for ones in (ideal, biased)
    ]
    assert p_values[0] > 0.01
    assert p_values[1] < 1e-9
    # u itself, which lies on 513 atoms, alarms without a reason.
    raw = stats.norm.cdf((ideal - 256) / law.deviation)
    assert kolmogorov_smirnov(law_of(raw)).p_value < 1e-9


def test_visibility_of_a_lattice() -> None:
    amplifier = BitZScoreAmplifier()
    seen = Visibility(amplifier.resolution(10_240).ks_distance)
    assert seen.visible_from == pytest.approx(9.5e5, rel=0.02)
    assert seen.distorts(1_000)
    assert not seen.distorts(500)
    # At the limit the bound of the rate is 1.25 %; at half of the visible number it is useless.
    assert seen.false_alarm_bound(int(seen.harmless_up_to), 0.01) == pytest.approx(0.0125, rel=0.01)
    assert seen.false_alarm_bound(int(seen.visible_from / 2), 0.01) > 0.7
    assert Visibility(0.0).visible_from == Visibility(0.0).harmless_up_to == math.inf


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: law_of(np.array([0.5, 1.0])), r"inside \(0, 1\)"),
        (lambda: kolmogorov_smirnov(EmpiricalLaw()), "no numbers"),
        (lambda: anderson_darling(EmpiricalLaw()), "no numbers"),
        (lambda: tail_test(EmpiricalLaw()), "no numbers"),
        (lambda: variance_test(moments_of([1.0])), "at least two"),
        (lambda: variance_test(moments_of([3, 3, 3])), "all of 3 numbers are equal"),
        (lambda: variance_ratio_test(moments_of([1, 2]), moments_of([1] * 10)), "no ratio"),
        (lambda: LatticeLaw.of_bits(0), "block_bytes=0"),
        (lambda: LatticeLaw.of_bits(1).transform([9], np.random.default_rng()), "0 to 8"),
        (lambda: LatticeLaw.of_bits(1).transform([1.0], np.random.default_rng()), "integer"),
    ],
)
def test_bad_input_is_named(call: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
