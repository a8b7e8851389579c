# SPDX-License-Identifier: Apache-2.0
"""Order in time: statsmodels, SciPy, enumeration, and the same figures whatever the chunks."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.sandbox.stats.runs import runstest_1samp
from statsmodels.stats.diagnostic import acorr_ljungbox, breaks_cusumolsresid
from statsmodels.tsa.stattools import acf

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import BlockMeans, Cusum, LjungBox, Runs
from qr_sampler_lab.analysis.order.hull import UpperHull
from qr_sampler_lab.analysis.order.runs import runs_probabilities


def fed(accumulator, values, chunks=1):
    for chunk in np.array_split(np.asarray(values, dtype=np.float64), chunks):
        accumulator.add(chunk)
    return accumulator


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.integers(1, 8), st.floats(-3, 3))
def test_a_hull_keeps_the_highest_point_for_every_slope(
    heights: list[float], chunks: int, slope: float
) -> None:
    hull, x, y = UpperHull(), np.arange(1.0, len(heights) + 1), np.array(heights)
    for at in np.array_split(np.arange(x.size), chunks):
        hull.add(x[at], y[at])
    assert hull.highest(slope)[0] == pytest.approx((y - slope * x).max(), abs=1e-9)


def test_a_hull_of_a_long_walk_is_small() -> None:
    hull, rng = UpperHull(), np.random.default_rng(1)
    for start in range(0, 10**6, 10**5):
        hull.add(start + np.arange(1e5), rng.standard_normal(10**5).cumsum())
    assert hull.x.size < 200


@pytest.mark.parametrize("chunks", [1, 13])
def test_cusum_is_the_largest_excursion_of_residuals(chunks: int) -> None:
    values = np.random.default_rng(2).normal(5.0, 2.0, 3_000) + np.linspace(-0.2, 0.2, 3_000)
    result = fed(Cusum(), values, chunks).result()
    # statsmodels divides by the root of the sum of squares over n, we over n - 1.
    oracle, _, _ = breaks_cusumolsresid(values - values.mean(), ddof=1)
    assert result.statistic == pytest.approx(oracle, rel=1e-9)
    # zeta(1/2) = -1.4603545088 (OEIS A059750).
    shift = 1.4603545088095868 / math.sqrt(2 * math.pi) / math.sqrt(3_000)
    assert result.p_value == pytest.approx(stats.kstwobign.sf(oracle + shift), rel=1e-6)
    path = np.cumsum(values - values.mean())
    assert result.notes[0].endswith(f"{np.abs(path).argmax() + 1:,} tokens.")
    assert result.effect == pytest.approx(path[np.abs(path).argmax()] / 3_000, rel=1e-6)


@pytest.mark.parametrize("chunks", [1, 3, 250, 500])
def test_ljung_box_equals_statsmodels(chunks: int) -> None:
    rng = np.random.default_rng(3)
    values = 1e3 + rng.standard_normal(500) + 0.2 * rng.standard_normal(500).cumsum() / 10
    test = fed(LjungBox(), values, chunks)
    oracle = acorr_ljungbox(values, lags=[10])
    assert test.result().statistic == pytest.approx(float(oracle["lb_stat"].iloc[0]), rel=1e-8)
    assert test.result().p_value == pytest.approx(float(oracle["lb_pvalue"].iloc[0]), rel=1e-7)
    assert test.autocorrelations() == pytest.approx(acf(values, nlags=10)[1:], rel=1e-7)


def test_ljung_box_of_little_more_than_its_lags() -> None:
    values = np.random.default_rng(4).random(12)
    oracle = acorr_ljungbox(values, lags=[10])
    statistic = fed(LjungBox(), values, 5).result().statistic
    assert statistic == pytest.approx(float(oracle["lb_stat"].iloc[0]), rel=1e-9)


@pytest.mark.parametrize("chunks", [1, 7])
def test_runs_equal_statsmodels(chunks: int) -> None:
    values = np.random.default_rng(5).random(900)
    result = fed(Runs(0.5), values, chunks).result()
    z, p_value = runstest_1samp(values, cutoff=0.5, correction=False)
    assert (result.statistic, result.p_value) == pytest.approx((z, p_value), rel=1e-9)


@pytest.mark.parametrize(("above", "below"), [(1, 1), (3, 5), (6, 2), (4, 4)])
def test_runs_have_the_enumerated_law(above: int, below: int) -> None:
    orders = (
        set(itertools.permutations("a" * above + "b" * below))
        if above + below < 8
        else {
            tuple("a" if k in chosen else "b" for k in range(above + below))
            for chosen in itertools.combinations(range(above + below), above)
        }
    )
    runs = Counter(len(list(itertools.groupby(order))) for order in orders)
    law = runs_probabilities(above, below)
    assert law == pytest.approx([runs[r] / len(orders) for r in range(law.size)], abs=1e-12)


def test_runs_of_few_numbers_are_exact_and_ties_are_left_out() -> None:
    # Eight changes of eight numbers and ties: all 70 orders of 4 and 4, two of which alternate.
    values = [0.1, 0.9, 0.5, 0.2, 0.8, 0.1, 0.7, 0.5, 0.3, 0.6]
    result = fed(Runs(0.5), values, 4).result()
    assert result.n == 8
    assert result.notes == ("8 runs.",)
    assert result.p_value == pytest.approx(2 * 2 / 70)


@pytest.mark.parametrize("chunks", [1, 9])
def test_block_means_are_one_way_analysis_of_variance(chunks: int) -> None:
    values = np.random.default_rng(6).random(1_050)
    test = fed(BlockMeans(100), values, chunks)
    oracle = stats.f_oneway(*values[:1_000].reshape(10, 100))
    result = test.result()
    assert (result.statistic, result.p_value) == pytest.approx(tuple(oracle), rel=1e-9)
    assert test.means == pytest.approx(values[:1_000].reshape(10, 100).mean(axis=1))
    assert result.n == 1_000


def test_each_test_sees_the_disorder_that_it_is_for() -> None:
    rng = np.random.default_rng(7)
    steady = rng.random(5_000)
    sticky = steady[np.maximum.accumulate(np.where(rng.random(5_000) < 0.2, 0, np.arange(5_000)))]
    drifting = steady * 0.9 + np.linspace(0.0, 0.1, 5_000)
    for make in (Cusum, LjungBox, Runs, lambda: BlockMeans(250)):
        assert fed(make(), steady).result().p_value > 1e-3
    assert fed(LjungBox(), sticky).result().p_value < 1e-9
    assert fed(Runs(), sticky).result().p_value < 1e-9
    assert fed(Cusum(), drifting).result().p_value < 1e-9
    assert fed(BlockMeans(250), drifting).result().p_value < 1e-6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Cusum().result(), "at least ten"),
        (lambda: fed(Cusum(), np.ones(20)).result(), "that vary"),
        (lambda: LjungBox(0), "lags=0"),
        (lambda: fed(LjungBox(), np.arange(10)).result(), "more than that"),
        (lambda: fed(LjungBox(), np.ones(30)).result(), "all numbers are equal"),
        (lambda: fed(Runs(), [0.6, 0.7]).result(), "both sides"),
        (lambda: BlockMeans(1), "tokens=1"),
        (lambda: fed(BlockMeans(10), np.arange(15)).result(), "1 full blocks"),
    ],
)
def test_bad_input_is_named(call: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
