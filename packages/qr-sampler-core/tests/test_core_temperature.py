# SPDX-License-Identifier: Apache-2.0
"""The statistics that temperature strategies decide on."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler import STATISTICS_STEP, LogitStatistics
from qr_sampler.selection import distances
from qr_sampler.selection.statistics import row_moments
from qr_sampler.temperature import rounded


@settings(max_examples=300)
@given(st.floats(-1e6, 1e6))
def test_rounding_finds_the_nearest_multiple_of_the_step(value: float) -> None:
    (result,) = rounded(np.array([value])).tolist()
    assert Fraction(result) == round(Fraction(value) * 1024) * Fraction(1, 1024)
    assert rounded(np.array([result])).tolist() == [result]


def test_the_step_is_a_thousandth_of_a_nat() -> None:
    assert STATISTICS_STEP == 1 / 1024


def test_the_order_of_addition_does_not_reach_the_rounded_entropy() -> None:
    """200 rows against a distance to the middle of two grid points of about 1e-12 in 1e-3."""
    rng = np.random.default_rng(11)
    distance = distances(rng.normal(0.0, 3.0, (200, 4_096)).astype(np.float32))
    entropy = np.array([row_moments(row).entropy_nats for row in distance])
    permuted = rng.permuted(distance, axis=1)
    again = np.array([row_moments(row).entropy_nats for row in permuted])
    assert (entropy != again).any(), "the order does not matter here anyway"
    assert (rounded(entropy) == rounded(again)).all()


@pytest.mark.parametrize("vocab_size", [1, 2, 5, 1_000, 151_936])
def test_normalised_entropy_is_a_fraction_of_the_largest(vocab_size: int) -> None:
    largest = math.log(vocab_size)
    entropy = np.array([0.0, largest / 3, largest, largest + STATISTICS_STEP / 2])
    statistics = LogitStatistics(
        entropy_nats=entropy,
        varentropy_nats2=np.zeros(4),
        logit_deviation=np.full(4, np.nan),
        vocab_size=vocab_size,
    )
    expected = [0.0, 1 / 3, 1.0, 1.0] if vocab_size > 1 else [0.0, 0.0, 0.0, STATISTICS_STEP / 2]
    assert statistics.normalised_entropy.tolist() == pytest.approx(expected, rel=1e-15)
