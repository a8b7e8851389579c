# SPDX-License-Identifier: Apache-2.0
"""Means: against SciPy, against exact enumeration, and with the error of a baseline."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import Moments, difference_test, mean_test, uniform_mean_test

SIDES = ("two-sided", "greater", "less")


def moments_of(values: object) -> Moments:
    moments = Moments()
    moments.add(values)
    return moments


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), st.integers(0, 40))
def test_moments_do_not_depend_on_chunks(values: list[float], cut: int) -> None:
    moments, merged = Moments(), Moments()
    moments.add(values[:cut])
    moments.add(values[cut:])
    merged.merge(moments_of(values[:cut]))
    merged.merge(moments_of(values[cut:]))
    for each in (moments, merged):
        assert each.n == len(values)
        assert each.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
        assert each.variance == pytest.approx(np.var(values, ddof=1), rel=1e-6, abs=1e-6)


def test_equal_numbers_of_two_arms_are_no_finding() -> None:
    arm, control = moments_of(np.full(1_000, 0.3)), moments_of(np.full(777, 0.3))
    assert (arm.mean, arm.variance) == (control.mean, control.variance) == (0.3, 0.0)
    with pytest.raises(ConfigError, match="nothing to compare"):
        difference_test(arm, control)


def test_moments_keep_their_digits_far_from_zero() -> None:
    values = 1e9 + np.random.default_rng(1).standard_normal(3_000)
    moments = Moments()
    for chunk in np.array_split(values, 7):
        moments.add(chunk)
    exact = [Fraction(each) for each in values.tolist()]
    mean = sum(exact) / len(exact)
    variance = float(sum((each - mean) ** 2 for each in exact) / (len(exact) - 1))
    assert moments.deviation == pytest.approx(math.sqrt(variance), rel=1e-7)


@pytest.mark.parametrize("side", SIDES)
def test_mean_of_normal_scores_equals_scipys_normal_law(side: str) -> None:
    moments = moments_of(np.random.default_rng(2).standard_normal(50) + 0.3)
    result = mean_test(moments, alternative=side)
    z = moments.mean * math.sqrt(50)
    expected = {
        "two-sided": 2 * stats.norm.sf(abs(z)),
        "greater": stats.norm.sf(z),
        "less": stats.norm.cdf(z),
    }
    assert result.statistic == pytest.approx(z, rel=1e-12)
    assert result.p_value == pytest.approx(expected[side], rel=1e-12)
    low, high = stats.norm.interval(0.95, moments.mean, 1 / math.sqrt(50))
    assert (result.interval.low, result.interval.high) == pytest.approx((low, high))


def test_a_baseline_adds_its_own_error() -> None:
    moments = moments_of(np.full(400, 0.1))
    alone, referred = mean_test(moments), mean_test(moments, baseline_blocks=400)
    assert alone.statistic == pytest.approx(2.0)
    assert referred.statistic == pytest.approx(2.0 / math.sqrt(2.0))
    assert "400 blocks" in referred.notes[0]
    assert not alone.notes


@pytest.mark.parametrize("side", SIDES)
def test_mean_of_few_uniform_numbers_is_exact(side: str) -> None:
    # All sums of three numbers from a grid of 40 midpoints: the law of Irwin and Hall to 1e-3.
    grid = (np.arange(40) + 0.5) / 40
    means = (grid[:, None, None] + grid[None, :, None] + grid[None, None, :]).ravel() / 3
    u = [0.7, 0.9, 0.65]
    mean = sum(u) / 3
    shares = {
        "two-sided": 2 * (means >= mean).mean(),
        "greater": (means >= mean).mean(),
        "less": (means <= mean).mean(),
    }
    result = uniform_mean_test(moments_of(u), alternative=side)
    assert result.p_value == pytest.approx(shares[side], abs=0.01)
    # 1 - P(S <= 2.25) = (3 - 2.25)**3 / 6 by hand.
    assert uniform_mean_test(moments_of(u), alternative="greater").p_value == pytest.approx(
        0.75**3 / 6, rel=1e-9
    )


def test_exact_and_normal_law_of_the_mean_meet_where_one_replaces_the_other() -> None:
    at, beyond = (moments_of(np.full(n, 0.5 + 3.29 / math.sqrt(12 * n))) for n in (200, 201))
    assert uniform_mean_test(beyond).p_value == pytest.approx(2 * stats.norm.sf(3.29))
    assert uniform_mean_test(at).p_value == pytest.approx(2 * stats.norm.sf(3.29), rel=0.03)
    assert uniform_mean_test(at).p_value < uniform_mean_test(beyond).p_value


@pytest.mark.parametrize("side", SIDES)
def test_difference_of_unequal_arms_is_welchs(side: str) -> None:
    rng = np.random.default_rng(3)
    arm, control = rng.normal(0.2, 1.0, 40), rng.normal(0.0, 3.0, 300)
    result = difference_test(moments_of(arm), moments_of(control), alternative=side)
    oracle = stats.ttest_ind(arm, control, equal_var=False, alternative=side)
    assert result.statistic == pytest.approx(oracle.statistic, rel=1e-10)
    assert result.p_value == pytest.approx(oracle.pvalue, rel=1e-10)
    interval = stats.ttest_ind(arm, control, equal_var=False).confidence_interval(0.95)
    assert (result.interval.low, result.interval.high) == pytest.approx(tuple(interval))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_test(Moments()), "0 tokens"),
        (lambda: difference_test(moments_of([1.0]), moments_of([1.0, 2.0])), "at least 2"),
        (lambda: difference_test(moments_of([1, 1]), moments_of([1, 1])), "nothing to compare"),
        (lambda: moments_of([1.0, math.nan]), r"values\[1\]=nan"),
        (lambda: moments_of([[1.0]]), "one number per token"),
        (lambda: mean_test(moments_of([1.0]), alternative="both"), "'both'"),
    ],
)
def test_bad_input_is_named(call: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
