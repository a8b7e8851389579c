# SPDX-License-Identifier: Apache-2.0
"""Whether u is uniform, on fresh bytes of the operating system.

Tests on fresh bytes state a false-alarm probability of at most 1e-9 that follows from an inequality
valid at every sample size (Dvoretzky-Kiefer-Wolfowitz with Massart's constant, and Bernstein), and
the probability of overlooking the wrong constant 255 / sqrt(12) = 73.612, the standard deviation of
a continuous law, by the same inequality.

What the Kolmogorov-Smirnov test can see: the wrong constant moves the distribution of u by 9.5e-4,
while the critical distance at 10**6 blocks and 1e-9 is 3.3e-3. At that size it detects gross
defects only. It detects the wrong constant with certainty at 10**9 blocks, which are simulated from
the exact law of byte sums; on real bytes a test of the scale of z does it with 6 * 10**6 blocks.
"""

from __future__ import annotations

import math
import os
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from qr_sampler import BlockCounts, ZScoreMeanAmplifier
from qr_sampler.settings import BYTE_MEAN, BYTE_STD

FALSE_ALARM = 1e-9
OVERLOOK = 1e-9
WRONG_STD = 255.0 / math.sqrt(12.0)


def sums_of_system_blocks(count: int, size: int) -> NDArray[np.intp]:
    """Returns the sums of fresh blocks; nothing else of a block goes into its u."""
    blocks = np.frombuffer(os.urandom(count * size), dtype=np.uint8).reshape(count, size)
    sums = BlockCounts(blocks).sums
    few = slice(0, 10_000)
    assert (ZScoreMeanAmplifier().amplify(blocks[few]).u == atoms(size)[sums[few]]).all()
    return sums


@cache
def law_of_the_sum(size: int) -> NDArray[np.float64]:
    """Returns the probabilities of the sums 0..255 * size of independent uniform bytes."""
    law = np.ones(1)
    for _ in range(size):
        law = np.convolve(law, np.full(256, 1.0 / 256.0))
    return law


def blocks_of_every_sum(size: int) -> NDArray[np.uint8]:
    """Returns one block for each sum from 0 to 255 * size, in that order."""
    sums = np.arange(255 * size + 1)[:, np.newaxis]
    return np.clip(sums - 255 * np.arange(size), 0, 255).astype(np.uint8)


@cache
def atoms(size: int, std: float = BYTE_STD, mean: float = BYTE_MEAN) -> NDArray[np.float64]:
    """Returns the u of every possible sum, ascending."""
    return ZScoreMeanAmplifier(mean=mean, std=std).amplify(blocks_of_every_sum(size)).u


def distance_from_uniform(u: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Returns sup |F - identity| for the law that puts *weights* on the ascending numbers *u*."""
    above = np.cumsum(weights)
    return float(max(np.abs(above - u).max(), np.abs(above - weights - u).max()))


def empirical_distance(u: NDArray[np.float64]) -> float:
    return distance_from_uniform(np.sort(u), np.full(u.size, 1.0 / u.size))


def ks_bound(count: int, probability: float) -> float:
    """Returns the e with P(sup |F_n - F| > e) <= probability, whatever F and n."""
    return math.sqrt(math.log(2.0 / probability) / (2.0 * count))


def bernstein_bound(count: int, variance: float, largest: float, probability: float) -> float:
    """Returns the t with P(|mean - expectation| > t) <= probability for terms within *largest*."""
    exponent = math.log(2.0 / probability) / count
    linear = largest * exponent / 3.0
    return linear + math.sqrt(linear**2 + 2.0 * variance * exponent)


def test_the_law_of_the_sum_is_the_enumerated_one() -> None:
    counted = np.zeros(255 * 2 + 1)
    for pair in product(range(256), repeat=2):
        counted[sum(pair)] += 1.0
    np.testing.assert_allclose(law_of_the_sum(2), counted / 256.0**2, rtol=1e-14)
    law = law_of_the_sum(16)
    sums = np.arange(law.size)
    assert law.sum() == pytest.approx(1.0, abs=1e-13)
    assert law @ sums == pytest.approx(16 * 127.5, rel=1e-13)
    assert law @ (sums - 16 * 127.5) ** 2 == pytest.approx(16 * BYTE_STD**2, rel=1e-12)
    assert (blocks_of_every_sum(16).sum(axis=1, dtype=np.int64) == sums).all()


def test_the_distance_is_the_one_of_scipy() -> None:
    u = np.random.default_rng(4).random(1_000)
    assert empirical_distance(u) == pytest.approx(stats.kstest(u, "uniform").statistic, rel=1e-12)


@pytest.mark.parametrize("size", [16, 64, 256])
def test_the_lattice_keeps_u_as_close_to_uniform_as_documented(size: int) -> None:
    documented = 1.0 / (2.0 * BYTE_STD * math.sqrt(2.0 * math.pi * size))
    # Small blocks add the error of the normal approximation: excess kurtosis -1.2 / size times
    # max |z**3 - 3 z| phi(z) / 24 (Edgeworth), together 0.0275 / size.
    exact = distance_from_uniform(atoms(size), law_of_the_sum(size))
    assert exact == pytest.approx(documented, abs=0.03 / size)
    assert exact < 3e-3


@pytest.mark.heavy
def test_a_million_blocks_pass_kolmogorov_smirnov() -> None:
    """False alarm <= 1e-9. Power: defects of u larger than about 7e-3 are certain to be seen."""
    count, size = 10**6, 256
    lattice = distance_from_uniform(atoms(size), law_of_the_sum(size))
    critical = lattice + ks_bound(count, FALSE_ALARM)
    assert critical < 3.6e-3
    sums = sums_of_system_blocks(count, size)
    observed = empirical_distance(atoms(size)[sums])
    assert observed <= critical, f"distance {observed} exceeds {critical}"

    # The standard error of a block four times as long, and bytes a quarter of a unit too high.
    assert empirical_distance(atoms(size, std=BYTE_STD / 2)[sums]) > critical
    assert empirical_distance(atoms(size, mean=127.25)[sums]) > critical
    # The wrong constant is out of reach at this size; the next two tests have the power.
    wrong = distance_from_uniform(atoms(size, WRONG_STD), law_of_the_sum(size))
    assert 9e-4 < wrong < critical


def test_kolmogorov_smirnov_sees_the_wrong_constant_given_enough_blocks() -> None:
    """The same test on 10**9 sums from the exact law: false alarm and oversight <= 1e-9."""
    count, size = 10**9, 64
    law = law_of_the_sum(size)
    lattice = distance_from_uniform(atoms(size), law)
    wrong = distance_from_uniform(atoms(size, WRONG_STD), law)
    critical = lattice + ks_bound(count, FALSE_ALARM)
    assert wrong > critical + ks_bound(count, OVERLOOK), "the test would have no power"

    sums = np.random.default_rng(73).multinomial(count, law / law.sum())
    assert distance_from_uniform(atoms(size), sums / count) <= critical
    assert distance_from_uniform(atoms(size, WRONG_STD), sums / count) > critical


@pytest.mark.heavy
def test_the_scale_of_z_reveals_the_wrong_constant_on_real_bytes() -> None:
    """E z**2 is 1 with the right constant and 1.0078 with the wrong one.

    z is read back from u. With the right constant its fourth moment is known exactly, so
    Bernstein's inequality bounds false alarm and oversight by 1e-9 each.
    """
    count, size = 6 * 10**6, 16
    kurtosis = sum((Fraction(value) - Fraction(255, 2)) ** 4 for value in range(256)) / 256
    excess = float(kurtosis / Fraction(256**2 - 1, 12) ** 2) - 3.0
    variance = 2.0 + excess / size
    largest = size * (127.5 / BYTE_STD) ** 2
    inflation = (BYTE_STD / WRONG_STD) ** 2
    allowed = bernstein_bound(count, variance, largest, FALSE_ALARM)
    unseen = inflation * bernstein_bound(count, variance, largest, OVERLOOK)
    assert inflation - 1.0 > allowed + unseen, "the test would have no power"

    counts = np.bincount(sums_of_system_blocks(count, size), minlength=255 * size + 1)
    for std, acceptable in ((BYTE_STD, True), (WRONG_STD, False)):
        observed = float(special.ndtri(atoms(size, std)) ** 2 @ counts) / count
        assert (abs(observed - 1.0) <= allowed) is acceptable, f"E z**2 = {observed} for {std}"
