# SPDX-License-Identifier: Apache-2.0
"""Power: statsmodels, the effect itself from all bytes, and simulations with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint

from qr_sampler import BitZScoreAmplifier, ZScoreMeanAmplifier
from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import (
    e_process_power,
    effect_of_bit_bias,
    effect_of_byte_mean,
    location_power,
    location_sample_size,
)
from qr_sampler_lab.analysis.intervals import wilson_interval

THEIRS = {"two-sided": "two-sided", "greater": "larger", "less": "smaller"}


@pytest.mark.parametrize("side", sorted(THEIRS))
@pytest.mark.parametrize(
    ("effect", "n", "ratio"), [(0.1, 700, 1.0), (-0.05, 900, 3.0), (0.2, 60, 0.5)]
)
def test_power_equals_statsmodels(side: str, effect: float, n: int, ratio: float) -> None:
    oracle = NormalIndPower().power(effect, n, 0.01, ratio=ratio, alternative=THEIRS[side])
    ours = location_power(effect, n, round(ratio * n), alpha=0.01, alternative=side)
    assert ours == pytest.approx(oracle, rel=1e-9)
    single = NormalIndPower(ddof=0).power(effect, n, 0.01, ratio=0, alternative=THEIRS[side])
    assert location_power(effect, n, alpha=0.01, alternative=side) == pytest.approx(single)


@pytest.mark.parametrize("ratio", [None, 1.0, 2.0])
@pytest.mark.parametrize("effect", [0.03, 0.5])
def test_sample_sizes_are_the_smallest(ratio: float | None, effect: float) -> None:
    n = location_sample_size(effect, power=0.9, alpha=0.01, ratio=ratio)
    oracle = NormalIndPower().solve_power(effect, None, 0.01, 0.9, ratio=ratio or 0)
    assert n == math.ceil(oracle)
    if ratio != 2.0:
        sizes = [(k, None if ratio is None else k) for k in (n - 1, n)]
        less, enough = (location_power(effect, *size, alpha=0.01) for size in sizes)
        assert less < 0.9 <= enough


def test_large_effects_need_one_token() -> None:
    assert location_sample_size(20.0, ratio=None) == 1


@pytest.mark.parametrize("probability", [0.501, 0.49])
def test_effects_are_what_amplifiers_show(probability: float) -> None:
    """Means of blocks of 64 bytes with biased bits, by exact expectation."""
    ones, mean = 512 * probability, 255 * probability
    assert effect_of_bit_bias(probability, 64) == pytest.approx((ones - 256) / math.sqrt(128))
    deviation = np.arange(256).std()
    expected = (mean - 127.5) * math.sqrt(64) / deviation
    assert effect_of_bit_bias(probability, 64, number="sum") == pytest.approx(expected)
    assert effect_of_byte_mean(mean, 64) == pytest.approx(expected)


def test_effects_refer_to_the_amplifiers_own_statistic() -> None:
    blocks = np.full((1, 64), 0x0F, dtype=np.uint8)
    assert ZScoreMeanAmplifier().amplify(blocks).statistic[0] == pytest.approx(
        effect_of_byte_mean(15.0, 64), rel=1e-3
    )
    blocks = np.full((1, 64), 0x7F, dtype=np.uint8)
    assert BitZScoreAmplifier().amplify(blocks).statistic[0] == pytest.approx(
        effect_of_bit_bias(7 / 8, 64)
    )


def test_an_e_process_pays_for_being_looked_at() -> None:
    """The figures of FIELD: 96 % instead of 99 % at 0.1, 35 % instead of 62 % at 0.05."""
    for effect, fixed, always in ((0.1, 0.994, 0.957), (0.05, 0.609, 0.35)):
        assert location_power(effect, 2_000) == pytest.approx(fixed, abs=2e-3)
        found = e_process_power(effect, 2_000, tau=0.1, paired=False, runs=1_000)
        # Seeded: five standard errors would be 8 %.
        assert found.power == pytest.approx(always, abs=0.04)
        assert found.interval.low < found.power < found.interval.high
    assert found.median_tokens == 2_000


def test_pairs_halve_the_variance_of_an_effect() -> None:
    paired = e_process_power(0.1 * math.sqrt(2.0), 500, tau=0.1, runs=300)
    single = e_process_power(0.1, 500, tau=0.1, paired=False, runs=300)
    assert paired == single
    none = e_process_power(-0.3, 500, tau=0.1, alternative="greater", runs=100)
    assert none.power == 0.0


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (5, 10), (10, 10), (37, 1_000)])
def test_intervals_of_shares_are_wilsons(hits: int, n: int) -> None:
    interval = wilson_interval(hits, n)
    oracle = proportion_confint(hits, n, method="wilson")
    assert (interval.low, interval.high) == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: location_power(0.1, 0), "n_arm=0"),
        (lambda: location_power(0.1, 1, 0), "n_control=0"),
        (lambda: location_power(0.1, 1, alternative="up"), "'up'"),
        (lambda: location_sample_size(0.1, power=0.01), "power=0.01"),
        (lambda: location_sample_size(0.1, ratio=0.0), "ratio=0.0"),
        (lambda: location_sample_size(0.0), "effect=0.0"),
        (lambda: location_sample_size(-0.1, alternative="greater"), "side that counts"),
        (lambda: e_process_power(0.1, 0, tau=0.1), "max_tokens=0"),
        (lambda: effect_of_bit_bias(0.5, 1, number="median"), "'median'"),
    ],
)
def test_bad_input_is_named(call: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
