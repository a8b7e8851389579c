# SPDX-License-Identifier: Apache-2.0
"""The figures of docs/statistics.md, from simulations with fixed seeds or from closed forms.

Every seed is fixed, so a figure that holds today holds tomorrow; the tolerances are four standard
errors of the simulation at least, and each test names the figure that it would miss without the
rule that it is about.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from qr_sampler import BitZScoreAmplifier, RandomWalkAmplifier
from qr_sampler_lab.analysis import (
    Cusum,
    EmpiricalLaw,
    LjungBox,
    Moments,
    Visibility,
    effect_of_bit_bias,
    kolmogorov_smirnov,
    location_sample_size,
    log_e_values,
    mean_test,
    smallest_tau_width,
)

RUNS, LOOKS = 2_000, 2_000
DRIFT_TOKENS = 3_000


@pytest.fixture(scope="module")
def null_sums() -> np.ndarray:
    """Sums of 2,000 ideal scores in each of 2,000 runs, after every score."""
    scores = np.random.default_rng(1).standard_normal((RUNS, LOOKS), dtype=np.float32)
    return scores.cumsum(axis=1, dtype=np.float64)


def test_looking_after_every_token_alarms_in_most_runs(null_sums: np.ndarray) -> None:
    """10, 100 and 1,000 looks: Armitage, McPherson and Rowe, Repeated significance tests on
    accumulating data (1969), table 2.
    """
    n = np.arange(1, LOOKS + 1)
    outside = np.abs(null_sums) > 1.96 * np.sqrt(n)
    for looks, rate in ((10, 0.193), (100, 0.374), (1_000, 0.530), (2_000, 0.576)):
        assert outside[:, :looks].any(axis=1).mean() == pytest.approx(rate, abs=0.045)
    # Whoever does not look before the tenth token.
    assert outside[:, 9:].any(axis=1).mean() == pytest.approx(0.505, abs=0.045)
    e_process = (log_e_values(n, null_sums, tau=0.1) >= math.log(20.0)).any(axis=1).mean()
    assert e_process == pytest.approx(0.030, abs=0.016)


def test_an_e_process_pays_with_power(null_sums: np.ndarray) -> None:
    n = np.arange(1, LOOKS + 1)
    for effect, fixed, always in ((0.1, 0.994, 0.957), (0.05, 0.609, 0.35)):
        sums = null_sums + effect * n
        at_end = (np.abs(sums[:, -1]) > 1.96 * math.sqrt(LOOKS)).mean()
        ever = (log_e_values(n, sums, tau=0.1) >= math.log(20.0)).any(axis=1).mean()
        assert at_end == pytest.approx(fixed, abs=0.045)
        assert ever == pytest.approx(always, abs=0.045)


def test_the_best_tau_of_two_thousand_tokens() -> None:
    assert smallest_tau_width(LOOKS) == pytest.approx(0.064, abs=5e-4)


@pytest.mark.heavy
def test_a_drift_without_a_mean_is_found_by_cusum_alone() -> None:
    """From -0.1 to +0.1 byte in blocks of 10,240 bytes, at 5 %."""
    shift = 0.1 / np.arange(256).std() * math.sqrt(10_240)
    trend, rng, runs = np.linspace(-shift, shift, DRIFT_TOKENS), np.random.default_rng(2), 300
    alarms = dict.fromkeys(("cusum", "mean", "kolmogorov_smirnov", "ljung_box"), 0)
    for _ in range(runs):
        z = rng.standard_normal(DRIFT_TOKENS) + trend
        moments, cusum, lags, law = Moments(), Cusum(), LjungBox(), EmpiricalLaw()
        for part in (moments, cusum, lags):
            part.add(z)
        law.add(special.ndtr(z))
        results = (cusum.result(), mean_test(moments), kolmogorov_smirnov(law), lags.result())
        for result in results:
            alarms[result.name] += result.p_value <= 0.05
    rates = {name: count / runs for name, count in alarms.items()}
    assert rates["cusum"] == pytest.approx(0.98, abs=0.035)
    assert rates["mean"] == pytest.approx(0.05, abs=0.05)
    assert rates["kolmogorov_smirnov"] == pytest.approx(0.055, abs=0.055)
    assert rates["ljung_box"] == pytest.approx(0.12, abs=0.08)


@pytest.mark.parametrize(("tokens", "rate"), [(40_000, 0.166), (140_000, 0.356)])
def test_a_baseline_taken_for_the_truth_alarms_too_often(tokens: int, rate: float) -> None:
    """The mean of N tokens has the variance 1 / N + 1 / N_b, with N_b = 40,000 blocks."""
    error = math.sqrt(1 / tokens + 1 / 40_000)
    assert 2 * stats.norm.sf(1.96 / error / math.sqrt(tokens)) == pytest.approx(rate, abs=1e-3)
    means = np.random.default_rng(3).standard_normal(4_000) * error
    naive = referred = 0
    for mean in means:
        moments = Moments()
        moments.n, moments.mean = tokens, float(mean)
        naive += mean_test(moments).p_value <= 0.05
        referred += mean_test(moments, baseline_blocks=40_000).p_value <= 0.05
    assert naive / 4_000 == pytest.approx(rate, abs=0.03)
    assert referred / 4_000 == pytest.approx(0.05, abs=0.014)


def test_answers_that_u_ends_have_biased_means() -> None:
    """A stop token of probability 0.1 at the upper end of u, and at most 24 tokens."""
    u = np.random.default_rng(4).random((20_000, 24))
    stop = u > 0.9
    length = np.where(stop.any(axis=1), stop.argmax(axis=1) + 1, 24)
    emitted = np.arange(24) < length[:, np.newaxis]
    means = (u * emitted).sum(axis=1) / length
    assert means.mean() == pytest.approx(0.578, abs=0.005)
    # Of 200 answers each.
    t = [stats.ttest_1samp(part, 0.5).statistic for part in np.array_split(means, 100)]
    assert np.mean(t) == pytest.approx(6.5, abs=0.5)
    pooled = u[emitted]
    assert abs(pooled.mean() - 0.5) * math.sqrt(12 * pooled.size) < 4.0


def test_u_of_a_random_walk_holds_a_tenth_of_its_statistic() -> None:
    """p = 0.501, 1 KiB: tokens until the mean is five standard errors from where it ought to be."""
    needed = {
        number: 25.0 / effect_of_bit_bias(0.501, 1_024, number=number) ** 2
        for number in ("walk", "walk_u")
    }
    assert needed["walk"] == pytest.approx(760, rel=0.01)
    assert needed["walk_u"] == pytest.approx(8_100, rel=0.01)
    # The closed forms against the amplifier itself, at a bias that shows in 2,000 blocks.
    rng = np.random.default_rng(5)
    blocks = np.packbits(rng.random((2_000, 8 * 256), dtype=np.float32) < 0.51, axis=1)
    found = RandomWalkAmplifier().amplify(blocks)
    walk, walk_u = (effect_of_bit_bias(0.51, 256, number=name) for name in ("walk", "walk_u"))
    assert found.statistic.mean() == pytest.approx(walk, abs=5 / math.sqrt(2_000))
    assert (found.u.mean() - 0.5) * math.sqrt(12) == pytest.approx(walk_u, abs=5 / math.sqrt(2_000))
    assert found.statistic.mean() > 10 / math.sqrt(2_000)


@pytest.mark.heavy
def test_a_lattice_alarms_long_before_it_is_as_large_as_the_critical_value() -> None:
    """The ones of 64 bytes: at half of (1.36 / D)**2 tokens a test of u at 1 % alarms in 45 %."""
    seen = Visibility(BitZScoreAmplifier().resolution(64).ks_distance)
    tokens, rng, runs = int(seen.visible_from / 2), np.random.default_rng(6), 100
    alarms = 0
    for _ in range(runs):
        law = EmpiricalLaw()
        law.add(special.ndtr((rng.binomial(512, 0.5, tokens) - 256) / math.sqrt(128)))
        alarms += kolmogorov_smirnov(law).p_value <= 0.01
    assert alarms / runs == pytest.approx(0.45, abs=0.2)


def test_tokens_of_the_smallest_effect() -> None:
    """The mock's 127.6 in blocks of 10,240 bytes, arm against arm, 80 % at 1 %."""
    effect = 0.1 / np.arange(256).std() * math.sqrt(10_240)
    assert location_sample_size(effect, power=0.8, alpha=0.01) == 1_246
