# SPDX-License-Identifier: Apache-2.0
"""Entropy and temperature strategies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from qr_sampler import (
    TEMPERATURE_STRATEGIES,
    EDTTemperatureStrategy,
    FixedTemperatureStrategy,
    LogitStatistics,
    Rows,
    SamplingParameters,
)
from qr_sampler.settings import MAX_TEMPERATURE, MIN_TEMPERATURE
from qr_sampler.temperature import shannon_entropy_nats


def entropy_of(*logits: float) -> float:
    return float(shannon_entropy_nats(np.array([logits], dtype=np.float32))[0])


def edt(
    entropy: list[float] | np.ndarray, vocab_size: int, **parameters: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    statistics = LogitStatistics(entropy_nats=np.asarray(entropy, float), vocab_size=vocab_size)
    rows = Rows([SamplingParameters(**parameters)] * len(entropy))  # type: ignore[arg-type]
    return EDTTemperatureStrategy().temperatures(statistics, rows)


@pytest.mark.parametrize("spread", [1e-6, 0.5, 3.0, 30.0, 1e4])
def test_entropy_equals_scipy(spread: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0.0, spread, (30, 1_000)).astype(np.float32)
    logits[::3, ::2] = -np.inf
    expected = stats.entropy(special.softmax(logits.astype(np.float64), axis=1), axis=1)
    np.testing.assert_allclose(shannon_entropy_nats(logits), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("vocab_size", [1, 2, 1_000, 151_936])
def test_entropy_of_equal_logits_is_the_logarithm_of_their_number(vocab_size: int) -> None:
    logits = np.full((2, vocab_size), -3.25, dtype=np.float32)
    assert shannon_entropy_nats(logits).tolist() == [math.log(vocab_size)] * 2


def test_entropy_of_one_survivor_is_zero() -> None:
    assert entropy_of(-np.inf, 2.0, -np.inf) == 0.0
    assert entropy_of(7.0) == 0.0
    assert entropy_of(0.0, -200.0) == pytest.approx(0.0, abs=1e-80)
    assert entropy_of(3e38, -3e38) == 0.0


def test_entropy_of_known_probabilities() -> None:
    halves = entropy_of(np.log(4.0), np.log(2.0), 0.0, 0.0)
    assert halves == pytest.approx(1.75 * math.log(2.0), rel=1e-7)


@settings(max_examples=300)
@given(
    st.lists(st.floats(-100.0, 100.0, width=32), min_size=1, max_size=50),
    st.lists(st.integers(0, 50), max_size=20),
)
def test_masked_tokens_do_not_change_the_entropy(logits: list[float], places: list[int]) -> None:
    masked = list(logits)
    for place in places:
        masked.insert(place, -math.inf)
    assert entropy_of(*masked) == pytest.approx(entropy_of(*logits), rel=1e-13, abs=1e-15)


@settings(max_examples=300)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=50))
def test_entropy_lies_between_zero_and_the_logarithm_of_the_vocabulary(logits: list[float]) -> None:
    entropy = entropy_of(*logits)
    assert 0.0 <= entropy <= math.log(len(logits)) * (1.0 + 1e-14)


def test_entropy_leaves_the_logits_alone_and_rows_are_independent() -> None:
    logits = np.random.default_rng(6).normal(0.0, 3.0, (17, 301)).astype(np.float32)
    logits[4, 5:] = -np.inf
    before = logits.copy()
    together = shannon_entropy_nats(logits)
    assert (logits == before).all()
    alone = [float(shannon_entropy_nats(row[np.newaxis])[0]) for row in logits]
    assert together.tolist() == alone


def test_fixed_returns_the_setting_of_each_row() -> None:
    rows = Rows([SamplingParameters(fixed_temperature=value) for value in (0.3, 1.7)])
    statistics = LogitStatistics(entropy_nats=np.array([0.0, 2.0]), vocab_size=10)
    assert FixedTemperatureStrategy().temperatures(statistics, rows).tolist() == [0.3, 1.7]


@settings(max_examples=300)
@given(
    st.floats(0.0, 1.0),
    st.integers(2, 200_000),
    st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE),
    st.floats(0.0, 100.0),
    st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE),
    st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE),
)
def test_edt_follows_its_formula(
    share: float, vocab_size: int, base: float, exponent: float, first: float, second: float
) -> None:
    low, high = sorted((first, second))
    entropy = share * math.log(vocab_size)
    (temperature,) = edt(
        [entropy],
        vocab_size,
        edt_base_temp=base,
        edt_exponent=exponent,
        edt_min_temp=low,
        edt_max_temp=high,
    )
    raw = base * min(1.0, entropy / math.log(vocab_size)) ** exponent
    assert temperature == pytest.approx(min(max(raw, low), high), rel=1e-12)
    assert low <= temperature <= high


def test_edt_grows_with_entropy() -> None:
    entropies = np.linspace(0.0, math.log(1_000), 500)
    temperatures = edt(entropies, 1_000, edt_exponent=0.7, edt_min_temp=0.2, edt_max_temp=0.7)
    assert (np.diff(temperatures) >= 0.0).all()
    assert (temperatures[0], temperatures[-1]) == (0.2, 0.7)
    between = (temperatures > 0.2) & (temperatures < 0.7)
    assert (np.diff(temperatures[between]) > 0.0).all()
    assert between.sum() > 100


def test_edt_at_the_ends() -> None:
    assert edt([math.log(8)], 8, edt_base_temp=0.9).tolist() == [0.9]
    assert edt([0.0], 8, edt_min_temp=0.25).tolist() == [0.25]
    # An exponent of 0 switches the dependence on entropy off.
    assert edt([0.0, 1.0], 8, edt_base_temp=0.9, edt_exponent=0.0).tolist() == [0.9, 0.9]
    # Rounding may leave an entropy just above its largest value.
    assert edt([math.log(8) * (1 + 1e-15)], 8, edt_base_temp=0.9).tolist() == [0.9]


def test_edt_with_one_token() -> None:
    assert edt([0.0], 1, edt_min_temp=0.3).tolist() == [0.3]


def test_edt_uses_the_parameters_of_each_row() -> None:
    rows = Rows([SamplingParameters(edt_base_temp=base) for base in (0.5, 1.5)])
    statistics = LogitStatistics(entropy_nats=np.full(2, math.log(4)), vocab_size=4)
    assert EDTTemperatureStrategy().temperatures(statistics, rows).tolist() == [0.5, 1.5]


def test_both_strategies_are_installed_by_name() -> None:
    assert TEMPERATURE_STRATEGIES.load("fixed") is FixedTemperatureStrategy
    assert TEMPERATURE_STRATEGIES.load("edt") is EDTTemperatureStrategy
