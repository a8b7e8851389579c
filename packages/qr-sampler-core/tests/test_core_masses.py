# SPDX-License-Identifier: Apache-2.0
"""The fixed-point grid of probability masses."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from qr_sampler.selection import MASS_UNIT, ceil_products, fixed_point_masses


def row(*logits: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array([logits], dtype=np.float32)


def test_the_unit_is_the_mass_of_the_maximum() -> None:
    assert MASS_UNIT == 2**35
    rng = np.random.default_rng(1)
    logits = rng.normal(0.0, 30.0, (200, 50)).astype(np.float32)
    masses = fixed_point_masses(logits, 10.0 ** rng.uniform(-3.0, 3.0, 200))
    assert masses.dtype == np.int64
    assert (masses.max(axis=1) == MASS_UNIT).all()
    assert (masses >= 0).all()
    assert (masses[np.arange(200), logits.argmax(axis=1)] == MASS_UNIT).all()


def test_masses_below_half_a_grid_step_vanish() -> None:
    """Below 2**-12 the grid is uniform: the mass is exp() in units of 2**-35, rounded to even."""
    exponents = np.linspace(8.4, 26.0, 20_001, dtype=np.float32)
    logits = np.concatenate([np.zeros(1, np.float32), -exponents])[np.newaxis]
    masses = fixed_point_masses(logits, np.ones(1))[0, 1:]
    weights = np.exp(-exponents)
    expected = [round(Fraction(float(weight)) * MASS_UNIT) for weight in weights]
    assert masses.tolist() == expected
    assert (masses[weights <= np.float32(2.0**-36)] == 0).all()
    assert (masses[weights > np.float32(2.0**-36)] > 0).all()
    assert (weights < 2.0**-36).any()


def test_masked_and_unrepresentably_distant_tokens_have_no_mass() -> None:
    logits = row(3e38, -np.inf, -3e38, 3e38)
    assert fixed_point_masses(logits, np.array([1e-3])).tolist() == [[MASS_UNIT, 0, 0, MASS_UNIT]]


@pytest.mark.parametrize("vocab_size", [1, 7, 4_096, 2**18])
def test_sums_do_not_depend_on_order_or_type(vocab_size: int) -> None:
    rng = np.random.default_rng(vocab_size)
    flat = np.zeros((1, vocab_size), dtype=np.float32)
    spread = rng.normal(0.0, 3.0, (1, vocab_size)).astype(np.float32)
    for logits in (flat, spread):
        masses = fixed_point_masses(logits, np.ones(1))[0]
        exact = sum(masses.tolist())
        assert exact <= 2**53
        floats = masses.astype(np.float64)
        for _ in range(3):
            rng.shuffle(floats)
            assert floats.sum() == exact
            assert np.cumsum(floats)[-1] == exact


def test_the_inverse_temperature_is_rounded_to_float32_once() -> None:
    logits, temperature = row(0.0, -1.7), 0.3
    exponent = np.float32(-1.7) * np.float32(1.0 / temperature)
    weight = np.exp(exponent) + np.float32(2.0**-12) - np.float32(2.0**-12)
    masses = fixed_point_masses(logits, np.array([temperature]))
    assert masses[0, 1] == int(float(weight) * MASS_UNIT)


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 0.7, 1.0, 2.5, 1e3])
def test_normalised_masses_are_the_softmax(temperature: float) -> None:
    """The total variation distance stays below 2**-21: float32 exponents, and nothing worse."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0.0, 4.0, (20, 5_000)).astype(np.float32)
    masses = fixed_point_masses(logits, np.full(20, temperature))
    probabilities = masses / masses.sum(axis=1, keepdims=True)
    exact = softmax(logits.astype(np.float64) / temperature, axis=1)
    distance = np.abs(probabilities - exact).sum(axis=1) / 2.0
    assert distance.max() < 2.0**-21


@settings(max_examples=500)
@given(st.floats(0.0, 1.0), st.integers(0, 2**53))
def test_products_are_rounded_up_exactly(factor: float, total: int) -> None:
    (product,) = ceil_products(np.array([factor]), np.array([total], dtype=np.int64)).tolist()
    assert product == math.ceil(Fraction(factor) * total)
    assert product - 1 < Fraction(factor) * total <= product


def test_products_see_what_float64_would_round_away() -> None:
    total = 2**53
    above = np.array([0.5 + 2.0**-53])
    assert ceil_products(above, np.array([total])).tolist() == [2**52 + 1]
    assert ceil_products(np.array([5e-324]), np.array([total])).tolist() == [1]
    assert ceil_products(np.array([0.0, 1.0]), np.array([total, total])).tolist() == [0, total]
