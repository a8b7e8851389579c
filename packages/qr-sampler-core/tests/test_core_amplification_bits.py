# SPDX-License-Identifier: Apache-2.0
"""The z-score of bit counts: its law, its lattice, and its advantage over the byte mean."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from qr_sampler import BitZScoreAmplifier, Settings, ZScoreMeanAmplifier
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.amplification.byte_sums import block_ones


def blocks_with_ones(size: int) -> NDArray[np.uint8]:
    """Returns one block for each number of ones from 0 to 8 * size, in that order."""
    bits = np.arange(8 * size) < np.arange(8 * size + 1)[:, np.newaxis]
    return np.packbits(bits, axis=1)


@given(st.binary(min_size=1, max_size=600))
def test_z_is_that_of_the_definition(block: bytes) -> None:
    ones = sum(bin(byte).count("1") for byte in block)
    result = BitZScoreAmplifier().amplify(np.frombuffer(block, dtype=np.uint8)[np.newaxis])
    z = (ones - 4 * len(block)) / math.sqrt(2 * len(block))
    assert result.statistic[0] == pytest.approx(z, rel=1e-14)
    assert result.u[0] == pytest.approx(min(max(stats.norm.cdf(z), U_MIN), U_MAX), rel=1e-9)
    assert 0.0 < result.u[0] < 1.0


def test_the_law_of_z_by_enumerating_all_pairs_of_bytes() -> None:
    """Mean 0 and variance 1 exactly, over rationals; the law is binomial."""
    blocks = np.array(list(product(range(256), repeat=2)), dtype=np.uint8)
    result = BitZScoreAmplifier().amplify(blocks)
    ones = block_ones(blocks).tolist()
    assert Fraction(sum(ones), len(ones)) == 8
    assert Fraction(sum((one - 8) ** 2 for one in ones), len(ones)) == 4
    assert np.bincount(ones).tolist() == [math.comb(16, k) for k in range(17)]
    np.testing.assert_allclose(result.statistic * 2.0, np.array(ones) - 8.0)


@pytest.mark.parametrize("size", [1, 8, 100, 800])
def test_the_resolution_is_that_of_the_exact_law(size: int) -> None:
    u = BitZScoreAmplifier().amplify(blocks_with_ones(size)).u
    at_most = stats.binom.cdf(np.arange(8 * size + 1), 8 * size, 0.5)
    below = np.concatenate([[0.0], at_most[:-1]])
    distance = max(np.abs(at_most - u).max(), np.abs(below - u).max())
    resolution = BitZScoreAmplifier().resolution(size)
    assert resolution.ks_distance == pytest.approx(distance, rel=1e-4)
    assert resolution.lattice_step == pytest.approx(np.diff(u).max(), rel=0.4 / size)
    assert resolution.lattice_step >= np.diff(u).max()


def test_the_documented_lattice_of_the_default_block() -> None:
    resolution = BitZScoreAmplifier().resolution(10_240)
    assert resolution.lattice_step == pytest.approx(1.0 / math.sqrt(4.0 * math.pi * 10_240), 1e-4)
    assert resolution.lattice_step == pytest.approx(2.8e-3, rel=0.01)


def information(weights: list[int]) -> Fraction:
    """Returns (shift of the mean)**2 / variance of sum(w * bit) per squared bias of a bit."""
    return Fraction(sum(weights)) ** 2 / (Fraction(sum(w * w for w in weights)) / 4)


def test_the_byte_mean_keeps_37_percent_of_the_information() -> None:
    """By calculation, with the variance of a byte from all of its 256 values."""
    byte, bits = information([2**k for k in range(8)]), information([1] * 8)
    variance = sum((Fraction(v) - Fraction(255, 2)) ** 2 for v in range(256)) / 256
    assert byte == Fraction(255) ** 2 / variance
    assert byte / bits == Fraction(255**2, 8 * 21_845)
    assert float(byte / bits) == pytest.approx(0.372, abs=5e-4)
    assert float(bits / byte) == pytest.approx(2.69, abs=5e-3)


def test_a_common_bias_moves_the_bit_count_further_on_real_blocks() -> None:
    """Mean z of biased blocks, both amplifiers on the same bytes.

    z has variance 1 (less, by the bias), so the mean of N blocks has a standard error of
    1 / sqrt(N); 6.2 of them have a false-alarm rate of 6e-10. The two expectations are more than
    six times that apart.
    """
    bias, count, size = 0.02, 2_000, 512
    rng = np.random.default_rng(4)
    blocks = np.packbits(rng.random((count, 8 * size)) < 0.5 + bias, axis=1)
    expected = {
        BitZScoreAmplifier: 2.0 * bias * math.sqrt(8 * size),
        ZScoreMeanAmplifier: 255.0 * bias / math.sqrt((256**2 - 1) / 12) * math.sqrt(size),
    }
    allowed = 6.2 / math.sqrt(count)
    means = {kind: kind().amplify(blocks).statistic.mean() for kind in expected}
    for kind, mean in means.items():
        assert abs(mean - expected[kind]) <= allowed
    assert expected[BitZScoreAmplifier] - expected[ZScoreMeanAmplifier] > 6.0 * allowed
    ratio = (means[ZScoreMeanAmplifier] / means[BitZScoreAmplifier]) ** 2
    assert ratio == pytest.approx(255**2 / (8 * 21_845), abs=0.1)


def test_a_bias_that_the_byte_mean_cannot_see() -> None:
    """Equal weights catch what the weights 128 ... 1 drown: here a common bias of low bits."""
    quiet = np.full((1, 10_240), 0b10000000, dtype=np.uint8)
    quiet[:, ::2] = 0b01111111
    low = quiet | 0b00000001
    assert ZScoreMeanAmplifier().amplify(low).statistic[0] < 1.0
    assert BitZScoreAmplifier().amplify(low).statistic[0] > 30.0


def test_population_settings_are_for_bytes() -> None:
    settings = Settings.load(population_mean=100.0, population_std=10.0)
    amplifier = BitZScoreAmplifier.from_settings(settings)
    assert (amplifier.ones_fraction, amplifier.correlation_factor) == (0.5, 1.0)
