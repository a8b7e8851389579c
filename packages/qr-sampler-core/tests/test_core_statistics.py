# SPDX-License-Identifier: Apache-2.0
"""Entropy, varentropy and deviation: right values, and the same ones for all selectors."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from qr_sampler import (
    STATISTICS_STEP,
    FastSelector,
    Measurement,
    ReferenceSelector,
    Rows,
    SamplingParameters,
)
from qr_sampler.selection import distances, statistics
from qr_sampler.selection.fast import passes
from qr_sampler.selection.fast.passes import RowPasses
from qr_sampler.selection.statistics import (
    Moments,
    exact_sum,
    is_settled,
    logit_deviation,
    row_moments,
)
from qr_sampler.temperature import rounded
from qr_sampler.testing.selection_cases import LOGIT_KINDS, random_logits


def moments_of(logits: list[float] | NDArray[np.float32]) -> Moments:
    return row_moments(distances(np.array([logits], dtype=np.float32))[0])


def plain_moments(logits: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and variance of -ln p under p, token by token."""
    probabilities = special.softmax(logits.astype(np.float64))
    surprisal = [(p, -math.log(p)) for p in probabilities.tolist() if p > 0.0]
    mean = math.fsum(p * s for p, s in surprisal)
    return mean, math.fsum(p * (s - mean) ** 2 for p, s in surprisal)


@pytest.mark.parametrize("spread", [1e-6, 0.5, 3.0, 30.0, 1e4])
def test_entropy_equals_scipy(spread: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0.0, spread, (30, 1_000)).astype(np.float32)
    logits[::3, ::2] = -np.inf
    # The definition rounds distances to float32; so does this comparison.
    softmax = special.softmax(distances(logits).astype(np.float64), axis=1)
    expected = stats.entropy(softmax, axis=1)
    found = [moments_of(row).entropy_nats for row in logits]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", [kind for kind in LOGIT_KINDS if kind != "huge"])
def test_both_moments_equal_the_plain_formulas(kind: str) -> None:
    rng = np.random.default_rng(LOGIT_KINDS.index(kind))
    for vocab_size in (1, 2, 50, 700):
        distance = distances(random_logits(rng, kind, vocab_size)[np.newaxis])[0]
        assert row_moments(distance) == pytest.approx(plain_moments(distance), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("vocab_size", [1, 2, 1_000, 151_936])
def test_moments_of_equal_logits(vocab_size: int) -> None:
    entropy, varentropy = moments_of(np.full(vocab_size, -3.25, dtype=np.float32))
    assert entropy == math.log(vocab_size)
    assert varentropy == 0.0


def test_moments_of_one_survivor_are_zero() -> None:
    assert moments_of([-np.inf, 2.0, -np.inf]) == pytest.approx((0.0, 0.0), abs=1e-290)
    assert moments_of([7.0]) == (0.0, 0.0)
    assert moments_of([0.0, -200.0]) == pytest.approx((0.0, 0.0), abs=1e-80)
    assert moments_of([3e38, -3e38]) == pytest.approx((0.0, 0.0), abs=1e-290)


def test_moments_of_known_probabilities() -> None:
    """Probabilities 1/2, 1/4, 1/8, 1/8: surprisals of 1, 2, 3 and 3 bits."""
    entropy, varentropy = moments_of([math.log(4.0), math.log(2.0), 0.0, 0.0])
    assert entropy == pytest.approx(1.75 * math.log(2.0), rel=1e-7)
    assert varentropy == pytest.approx(0.6875 * math.log(2.0) ** 2, rel=1e-6)


@pytest.mark.heavy
@settings(max_examples=300)
@given(
    st.lists(st.floats(-100.0, 100.0, width=32), min_size=1, max_size=50),
    st.lists(st.integers(0, 50), max_size=20),
)
def test_masked_tokens_change_nothing(logits: list[float], places: list[int]) -> None:
    masked = list(logits)
    for place in places:
        masked.insert(place, -math.inf)
    assert moments_of(masked) == pytest.approx(moments_of(logits), rel=1e-9, abs=1e-12)
    without, with_ = (np.array(row, dtype=np.float32) for row in (logits, masked))
    assert logit_deviation(with_) == logit_deviation(without)


@settings(max_examples=300)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=50))
def test_entropy_lies_between_zero_and_the_logarithm_of_the_vocabulary(logits: list[float]) -> None:
    entropy, varentropy = moments_of(logits)
    assert 0.0 <= entropy <= math.log(len(logits)) * (1.0 + 1e-14)
    assert varentropy >= 0.0


@pytest.mark.heavy
@settings(max_examples=500)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1))
def test_the_deviation_is_that_of_exact_arithmetic(logits: list[float]) -> None:
    values = [Fraction(float(np.float32(value))) for value in logits]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    found = Fraction(logit_deviation(np.array(logits, dtype=np.float32)))
    # Within one unit in the last place of float32, or in its denormal range.
    unit = Fraction(2) ** -149
    assert max(found * (1 - Fraction(1, 2**23)) - unit, Fraction(0)) ** 2 <= variance
    assert variance <= (found * (1 + Fraction(1, 2**23)) + unit) ** 2


def test_the_deviation_equals_numpy_and_is_zero_for_equal_logits() -> None:
    rng = np.random.default_rng(9)
    for spread in (1e-3, 1.0, 1e3):
        logits = rng.normal(5.0, spread, 20_000).astype(np.float32)
        expected = np.float32(np.std(logits.astype(np.float64)))
        assert logit_deviation(logits) == expected
    assert logit_deviation(np.full(3_001, 0.1, dtype=np.float32)) == 0.0
    assert logit_deviation(np.array([-np.inf, 3.7, -np.inf], dtype=np.float32)) == 0.0


def test_the_deviation_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(10)
    for _ in range(200):
        logits = rng.normal(0.0, 3.0, 4_096).astype(np.float32)
        assert logit_deviation(logits) == logit_deviation(rng.permutation(logits))


def measured(
    selector: FastSelector | ReferenceSelector, logits: NDArray[np.float32], settle: int
) -> Measurement:
    count = len(logits)
    rows = Rows([SamplingParameters(top_n_sigma=1.0)] * count)
    return selector.measure(logits, rows, np.full(count, np.nan), np.full(count, settle))


@pytest.mark.parametrize(("vocab_size", "count"), [(37, 3_000), (5_000, 600), (151_936, 4)])
def test_all_selectors_agree_on_the_rounded_moments(vocab_size: int, count: int) -> None:
    rng = np.random.default_rng(vocab_size)
    fast_selector, reference = FastSelector(), ReferenceSelector()
    for start in range(0, count, 200):
        kinds = rng.choice(LOGIT_KINDS, min(200, count - start))
        logits = np.stack([random_logits(rng, str(kind), vocab_size) for kind in kinds])
        logits *= rng.uniform(0.1, 3.0, (len(logits), 1)).astype(np.float32).clip(0.1, 1.1)
        expected = measured(reference, logits, 2)
        found = measured(fast_selector, logits, 2)
        for name in ("entropy_nats", "varentropy_nats2"):
            values = rounded(getattr(found, name)), rounded(getattr(expected, name))
            assert values[0].tolist() == values[1].tolist(), name
        assert found.logit_deviation.tolist() == expected.logit_deviation.tolist()
        entropy = measured(fast_selector, logits, 1).entropy_nats
        assert rounded(entropy).tolist() == rounded(expected.entropy_nats).tolist()


def test_unsettled_moments_are_close_and_their_error_is_bounded() -> None:
    """Of the float32 pass: its own bounds hold, and they are of use for the rounding."""
    rng = np.random.default_rng(12)
    settled = 0
    for _ in range(400):
        logits = random_logits(rng, str(rng.choice(LOGIT_KINDS)), 3_000)
        with np.errstate(over="ignore", invalid="ignore"):
            found = RowPasses(logits.size).moments(logits, logits.max())
        exact = moments_of(logits)
        entropy, varentropy = found.moments
        assert abs(entropy - exact.entropy_nats) <= found.entropy_error + 1e-25
        assert abs(varentropy - exact.varentropy_nats2) <= found.varentropy_error + 1e-25
        settled += found.settles(2)
    assert settled >= 200


def row_of_entropy(goal: float, vocab_size: int = 5_000) -> NDArray[np.float32]:
    """One outstanding token, as high above equal others as the entropy demands."""
    lower, upper = np.float32(0.0), np.float32(30.0)
    logits = np.zeros(vocab_size, dtype=np.float32)
    while np.nextafter(lower, upper) < upper:
        logits[0] = middle = np.float32(0.5) * (lower + upper)
        if moments_of(logits).entropy_nats > goal:
            lower = middle
        else:
            upper = middle
    return logits


def test_without_error_bounds_some_rows_would_round_differently() -> None:
    """The agreement above is not due to luck: float32 sums alone do not give it."""
    differing = 0
    for multiple in range(1_000, 5_000, 25):
        logits = row_of_entropy((multiple + 0.5) * STATISTICS_STEP, 1_000)
        found = np.array(RowPasses(logits.size).moments(logits, logits.max()).moments)
        differing += int((rounded(found) != rounded(np.array(moments_of(logits)))).any())
    assert differing >= 3


@pytest.mark.heavy
@settings(max_examples=500)
@given(st.integers(-(10**6), 10**6), st.floats(0.0, 0.75), st.floats(0.0, 0.49))
def test_a_value_is_settled_if_its_surroundings_round_alike(
    multiple: int, offset: float, error: float
) -> None:
    """In units of the step; all numbers here are far from the limits of float64."""
    value = multiple + offset
    expected = round(value - error) == round(value + error)
    assert is_settled(value * STATISTICS_STEP, error * STATISTICS_STEP) == expected


def test_exact_halves_are_settled_only_without_an_error() -> None:
    for half in (0.5, 1.5, 7.5):
        assert is_settled(half * STATISTICS_STEP, 0.0)
        assert not is_settled(half * STATISTICS_STEP, 1e-9 * STATISTICS_STEP)
        assert is_settled((half + 0.25) * STATISTICS_STEP, 0.2 * STATISTICS_STEP)
        assert not is_settled((half + 0.25) * STATISTICS_STEP, 0.3 * STATISTICS_STEP)
        assert not is_settled((half - 0.25) * STATISTICS_STEP, 0.3 * STATISTICS_STEP)
    assert is_settled(0.0, 0.4 * STATISTICS_STEP)
    assert not is_settled(0.0, 10.0)


def test_a_row_on_the_edge_of_rounding_is_added_up_in_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def noted(distance: NDArray[np.float32], scratch: NDArray[np.float64]) -> Moments:
        asked.append(True)
        return row_moments(distance, scratch)

    monkeypatch.setattr(passes, "row_moments", noted)
    for multiple in (2_000.5, 3_001.5, 4_096.5):
        edge = row_of_entropy(multiple * STATISTICS_STEP)[np.newaxis]
        exact = moments_of(edge[0])
        assert abs(exact.entropy_nats / STATISTICS_STEP - multiple) < 1e-3
        assert measured(FastSelector(), edge, 0).entropy_nats != exact.entropy_nats
        asked.clear()
        assert measured(FastSelector(), edge, 1).entropy_nats == exact.entropy_nats
        assert asked
    asked.clear()
    middle = row_of_entropy(3_000.0 * STATISTICS_STEP)[np.newaxis]
    measured(FastSelector(), middle, 1)
    assert not asked


def test_a_float64_sum_in_doubt_is_made_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide margin of doubt leads to exact sums, and those agree with the float64 ones."""
    logits = np.random.default_rng(14).normal(0.0, 3.0, 5_000).astype(np.float32)
    plain = moments_of(logits), logit_deviation(logits)
    monkeypatch.setattr(statistics, "FLOAT64_ERROR", 1.0)
    sums = []

    def noted(values: NDArray[np.float64]) -> float:
        sums.append(exact_sum(values))
        return sums[-1]

    monkeypatch.setattr(statistics, "exact_sum", noted)
    exact = moments_of(logits), logit_deviation(logits)
    assert len(sums) == 5
    assert exact[0] == pytest.approx(plain[0], rel=1e-12)
    assert exact[1] == plain[1]
    assert moments_of(np.random.default_rng(15).permutation(logits)) == exact[0]


@settings(max_examples=300)
@given(st.lists(st.floats(-1e290, 1e290), min_size=1, max_size=40), st.integers(0, 3))
def test_exact_sums_are_those_of_the_standard_library(values: list[float], halves: int) -> None:
    values += [value * 2.0 ** -(53 * halves) for value in values]
    assert exact_sum(np.array(values)) == math.fsum(values)
    assert exact_sum(np.array(values + [-value for value in values])) == 0.0


def test_an_exact_sum_of_many_numbers_of_all_sizes_is_rounded_once() -> None:
    rng = np.random.default_rng(16)
    for spread in (0.0, 1.0, 30.0):
        values = rng.normal(size=9_000) * 10.0 ** (spread * rng.normal(size=9_000)).clip(-200, 200)
        assert exact_sum(values) == math.fsum(values)
    # In the middle between two numbers: what is far smaller decides.
    for least in (0.0, 2.0**-300, -(2.0**-300)):
        middle = [1.0, 2.0**-53, least]
        assert exact_sum(np.array(middle)) == math.fsum(middle)


def test_a_deviation_between_two_numbers_is_settled_by_exact_sums() -> None:
    """Half of the logits are 1 + 2**-23 and the others -1: sigma = 1 + 2**-24."""
    logits = np.repeat(np.array([1.0 + 2.0**-23, -1.0], dtype=np.float32), 4_096)
    assert logit_deviation(logits) == 1.0
    logits[0] = 2.0
    assert logit_deviation(logits) == np.float32(np.std(logits.astype(np.float64)))
