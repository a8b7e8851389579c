# SPDX-License-Identifier: Apache-2.0
"""The running mean that drift is measured against."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from qr_sampler import RunningMean

# Multiples of 2**-10 and rates of few digits: float64 holds every intermediate result exactly.
ON_GRID = st.integers(0, 12 * 1024).map(lambda steps: steps / 1024)


def mean_of(values: list[float], rate: float) -> float:
    mean = RunningMean(rate)
    for value in values:
        mean.observe(value)
    return mean.value


def test_there_is_no_mean_before_the_first_value() -> None:
    mean = RunningMean(0.5)
    assert math.isnan(mean.value)
    mean.observe(3.25)
    assert mean.value == 3.25


@pytest.mark.heavy
@settings(max_examples=300)
@given(st.lists(ON_GRID, min_size=1, max_size=12), st.sampled_from([0.5, 0.25, 0.75, 1.0]))
def test_the_mean_is_the_sum_of_its_geometric_weights(values: list[float], rate: float) -> None:
    share = Fraction(rate)
    expected = (1 - share) ** (len(values) - 1) * Fraction(values[0])
    for age, value in enumerate(reversed(values[1:])):
        expected += share * (1 - share) ** age * Fraction(value)
    assert Fraction(mean_of(values, rate)) == expected


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.3, 0.99])
def test_the_mean_is_a_first_order_filter(rate: float) -> None:
    values = np.random.default_rng(4).uniform(0.0, 12.0, 500)
    expected, _ = signal.lfilter([rate], [1.0, rate - 1.0], values, zi=[(1.0 - rate) * values[0]])
    mean = RunningMean(rate)
    found = []
    for value in values.tolist():
        mean.observe(value)
        found.append(mean.value)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@settings(max_examples=300)
@given(
    st.lists(st.floats(0.0, 12.0), min_size=1, max_size=50),
    st.floats(0.0, 1.0, exclude_min=True),
)
def test_the_mean_stays_among_its_values_and_repeats_itself(
    values: list[float], rate: float
) -> None:
    mean = mean_of(values, rate)
    assert min(values) - 1e-12 <= mean <= max(values) + 1e-12
    assert mean_of(values, rate) == mean


def test_the_rate_says_how_much_the_newest_value_counts() -> None:
    assert mean_of([4.0, 0.0], 0.25) == 3.0
    assert mean_of([4.0, 0.0], 1.0) == 0.0
