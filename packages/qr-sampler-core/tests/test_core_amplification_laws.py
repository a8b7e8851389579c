# SPDX-License-Identifier: Apache-2.0
"""The laws of byte sums and bit counts against integer arithmetic and SciPy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from qr_sampler.amplification.laws.fair_bits import (
    LAW_ERROR,
    FairBitsLaw,
    law_of_bits,
    law_of_bytes,
)
from qr_sampler.amplification.laws.normal import (
    lattice_gap,
    normal_cdf,
    z_distance_of_bits,
    z_distance_of_bytes,
)
from qr_sampler.settings import BYTE_STD


def ways_to_sum(count: int) -> list[int]:
    """Returns in how many ways *count* bytes have each sum, by repeated integer convolution."""
    ways = [1]
    for _ in range(count):
        running, longer = 0, []
        for total in range(len(ways) + 255):
            running += ways[total] if total < len(ways) else 0
            running -= ways[total - 256] if total >= 256 else 0
            longer.append(running)
        ways = longer
    return ways


def exact(ways: list[int], total: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns P(S < s) + P(S = s) / 2 and P(S = s), each rounded once."""
    below, centre, mass = 0, [], []
    for way in ways:
        centre.append((2 * below + way) / (2 * total))
        mass.append(way / total)
        below += way
    return np.array(centre), np.array(mass)


def assert_equals(law: FairBitsLaw, ways: list[int], total: int) -> None:
    centre, mass = law.evaluate(np.arange(len(ways)))
    expected_centre, expected_mass = exact(ways, total)
    np.testing.assert_allclose(centre, expected_centre, rtol=0.0, atol=LAW_ERROR / 3)
    np.testing.assert_allclose(mass, expected_mass, rtol=0.0, atol=LAW_ERROR / 3)


# From 31 bytes on the window is narrower than the support, from 47 on frequencies are left out.
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 17, 30, 31, 32, 46, 47, 64])
def test_sums_of_bytes_by_integer_convolution(count: int) -> None:
    ways = ways_to_sum(count)
    assert sum(ways) == 256**count
    assert_equals(law_of_bytes(count), ways, 256**count)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 16, 64, 361, 362, 1_000])
def test_bit_counts_by_binomial_coefficients(count: int) -> None:
    ways = [math.comb(count, ones) for ones in range(count + 1)]
    assert_equals(law_of_bits(count), ways, 2**count)
    centre, mass = law_of_bits(count).evaluate(np.arange(count + 1))
    binomial = stats.binom(count, 0.5)
    ones = np.arange(count + 1)
    np.testing.assert_allclose(mass, binomial.pmf(ones), rtol=0.0, atol=1e-13)
    np.testing.assert_allclose(centre + mass / 2.0, binomial.cdf(ones), rtol=0.0, atol=1e-13)


def sums_at_most(count: int, total: int) -> int:
    """Returns in how many ways *count* bytes add up to *total* or less (inclusion, exclusion)."""
    return sum(
        (-1) ** j * math.comb(count, j) * math.comb(total - 256 * j + count, count)
        for j in range(min(count, total // 256) + 1)
    )


@pytest.mark.parametrize("sigmas", [-7.0, -3.0, -1.0, -0.1, 0.0, 0.7, 2.5])
def test_long_sums_by_the_closed_form(sigmas: float) -> None:
    count = 300
    value = round(127.5 * count + sigmas * BYTE_STD * math.sqrt(count))
    below, at_most = sums_at_most(count, value - 1), sums_at_most(count, value)
    centre, mass = law_of_bytes(count).evaluate(np.array([value]))
    everything = 256**count
    assert abs(Fraction(centre[0]) - Fraction(below + at_most, 2 * everything)) < LAW_ERROR / 3
    assert abs(Fraction(mass[0]) - Fraction(at_most - below, everything)) < LAW_ERROR / 3


def test_the_closed_form_is_the_convolution() -> None:
    ways = ways_to_sum(3)
    assert [sums_at_most(3, total) for total in range(766)] == np.cumsum(ways).tolist()


def test_bit_counts_of_the_default_block_in_integers() -> None:
    """81,920 fair bits, from the recurrence of the binomial coefficients."""
    bits, way, below = 8 * 10_240, 1, 0
    wanted = {40_960 + offset for offset in (-1_200, -300, -10, 0, 1, 77, 500)}
    law = law_of_bits(bits)
    for ones in range(max(wanted) + 1):
        if ones in wanted:
            centre, mass = law.evaluate(np.array([ones]))
            expected = Fraction(2 * below + way, 2 ** (bits + 1))
            assert abs(Fraction(centre[0]) - expected) < LAW_ERROR / 3
            assert abs(Fraction(mass[0]) - Fraction(way, 2**bits)) < LAW_ERROR / 3
        below += way
        way = way * (bits - ones) // (ones + 1)


def test_sums_of_the_default_block_by_a_full_transform() -> None:
    """The whole law of 10,240 bytes from all 2**22 frequencies, without window or truncation."""
    count, period = 10_240, 2**22
    angle = np.pi / period * np.arange(period // 2 + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # The Dirichlet kernel of 256 values, which is real about their mean.
        kernel = np.sin(256.0 * angle) / (256.0 * np.sin(angle))
    kernel[0] = 1.0
    mass = np.fft.irfft(kernel**count, period)
    mass = np.roll(mass, period // 2)
    below = np.cumsum(mass) - mass / 2.0
    middle = 255 * count // 2
    offsets = np.arange(-60_000, 60_001, 11)
    centre, single = law_of_bytes(count).evaluate(middle + offsets)
    np.testing.assert_allclose(single, mass[period // 2 + offsets], rtol=0.0, atol=1e-15)
    # A power of a rounded kernel is good to about count * 1e-16.
    np.testing.assert_allclose(centre, below[period // 2 + offsets], rtol=0.0, atol=3e-12)


@pytest.mark.parametrize("count", [1, 8, 100, 10_240, 2**24 - 1])
def test_laws_are_symmetric_and_end_at_0_and_1(count: int) -> None:
    law = law_of_bytes(count)
    assert law.total == 255 * count
    assert law.deviation == pytest.approx(BYTE_STD * math.sqrt(count), rel=1e-14)
    near = law.total // 2 + np.unique(np.linspace(-3.0, 3.0, 50) * law.deviation).astype(np.intp)
    values = np.unique(np.clip(np.append(near, [0, law.total]), 0, law.total))
    centre, mass = law.evaluate(values)
    mirrored, same = law.evaluate(law.total - values)
    np.testing.assert_allclose(centre + mirrored, 1.0, rtol=0.0, atol=LAW_ERROR)
    np.testing.assert_allclose(mass, same, rtol=0.0, atol=LAW_ERROR)
    assert (np.diff(centre) > -LAW_ERROR).all()
    assert centre[0] == pytest.approx(mass[0] / 2.0, abs=LAW_ERROR)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 8, 16, 40])
def test_distances_of_short_blocks_by_all_atoms(count: int) -> None:
    centre, mass = exact(ways_to_sum(count), 256**count)
    z = (np.arange(centre.size) - 127.5 * count) / (BYTE_STD * math.sqrt(count))
    u = stats.norm.cdf(z)
    distance = max(np.abs(centre + mass / 2 - u).max(), np.abs(centre - mass / 2 - u).max())
    assert z_distance_of_bytes(count) == pytest.approx(distance, rel=1e-4)


@pytest.mark.parametrize("count", [8, 64, 800, 8_000, 81_920])
def test_distances_of_bit_counts_by_all_atoms(count: int) -> None:
    ones = np.arange(count + 1)
    u = stats.norm.cdf((ones - count / 2) / math.sqrt(count / 4))
    at_most = stats.binom.cdf(ones, count, 0.5)
    below = np.concatenate([[0.0], at_most[:-1]])
    distance = max(np.abs(at_most - u).max(), np.abs(below - u).max())
    assert z_distance_of_bits(count) == pytest.approx(distance, rel=1e-4)


@pytest.mark.parametrize("count", [256, 1_024, 10_240, 65_536])
def test_distances_of_long_blocks_are_half_a_gap(count: int) -> None:
    """Half a gap from the lattice, and 0.0275 / n from the excess kurtosis (Edgeworth)."""
    gap = lattice_gap(1.0 / (BYTE_STD * math.sqrt(count)))
    assert z_distance_of_bytes(count) == pytest.approx(gap / 2.0, abs=0.03 / count)
    assert z_distance_of_bits(8 * count) == pytest.approx(
        lattice_gap(1.0 / math.sqrt(2.0 * count)) / 2.0, rel=0.01
    )


def test_the_gap_is_the_widest_one() -> None:
    for step in (0.01, 0.3):
        u = normal_cdf(np.arange(-40.5, 41.0) * step)
        assert lattice_gap(step) == pytest.approx(np.diff(u).max(), rel=1e-13)
