# SPDX-License-Identifier: Apache-2.0
"""Random walks against a walk in plain Python, exact enumeration and the gambler's ruin."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from qr_sampler import ConfigError, RandomWalkAmplifier
from qr_sampler.amplification.walk import MAX_DIGITS, TYPICAL_WALKS


def bits_of(block: bytes) -> Iterator[int]:
    for byte in block:
        for position in range(7, -1, -1):
            yield byte >> position & 1


def walk(block: bytes, bound: int) -> list[int]:
    """Returns the exits of the walks of a block, bit by bit."""
    digits, position = [], 0
    for bit in bits_of(block):
        position += 1 if bit else -1
        if abs(position) == bound:
            digits.append(int(position > 0))
            position = 0
    return digits


def all_blocks(size: int) -> NDArray[np.uint8]:
    return np.arange(256**size, dtype=">u4").view(np.uint8).reshape(-1, 4)[:, 4 - size :]


@given(st.binary(min_size=1, max_size=300), st.integers(1, 12))
def test_the_walk_is_the_one_taken_bit_by_bit(block: bytes, bound: int) -> None:
    digits = walk(block, bound)
    used = digits[:MAX_DIGITS]
    cell = int("".join(map(str, used)) or "0", 2)
    result = RandomWalkAmplifier(bound).amplify(np.frombuffer(block, dtype=np.uint8)[np.newaxis])
    assert Fraction(float(result.u[0])) == Fraction(2 * cell + 1, 2 ** (len(used) + 1))
    assert result.lattice_step[0] == 2.0 ** -len(used)
    ups = sum(digits)
    expected = (2 * ups - len(digits)) / math.sqrt(len(digits) or 1)
    assert result.statistic[0] == pytest.approx(expected)
    assert 0.0 < result.u[0] < 1.0


@pytest.mark.parametrize(
    ("size", "bound"),
    [(1, 1), (1, 2), (1, 3), (1, 4), pytest.param(2, 3, marks=pytest.mark.heavy)],
)
def test_u_is_exactly_uniform_given_the_number_of_walks(size: int, bound: int) -> None:
    """All blocks of one and two bytes: each midpoint of each lattice equally often."""
    result = RandomWalkAmplifier(bound).amplify(all_blocks(size))
    seen: dict[float, Counter[float]] = defaultdict(Counter)
    for u, step in zip(result.u.tolist(), result.lattice_step.tolist(), strict=True):
        seen[step][u] += 1
    for step, counts in seen.items():
        cells = round(1 / step)
        assert sorted(counts) == [(2 * cell + 1) / (2 * cells) for cell in range(cells)]
        assert len(set(counts.values())) == 1
    # The check sees a walk with a preference: without the blocks that begin with a zero.
    half = RandomWalkAmplifier(bound).amplify(all_blocks(size)[128 * 256 ** (size - 1) :])
    if bound > 1:
        assert len(set(Counter(half.u.tolist()).values())) > 1


def ruin(bound: int, p: Fraction) -> Fraction:
    """Returns P(+bound before -bound) from 0, from the linear equations of the walk."""
    # h(x) = p h(x + 1) + (1 - p) h(x - 1), h(-bound) = 0: increments form a geometric sequence.
    increments = [((1 - p) / p) ** step for step in range(2 * bound)]
    return sum(increments[:bound], Fraction(0)) / sum(increments, Fraction(0))


@pytest.mark.parametrize("bound", [1, 2, 5, 36])
def test_the_documented_gain_is_the_gamblers_ruin(bound: int) -> None:
    for p in (Fraction(1, 2), Fraction(51, 100), Fraction(2, 3)):
        assert ruin(bound, p) == 1 / (1 + ((1 - p) / p) ** bound)
    small = Fraction(1, 10**6)
    gain = (ruin(bound, Fraction(1, 2) + small) - Fraction(1, 2)) / small
    assert float(gain) == pytest.approx(bound, rel=1e-3)


@pytest.mark.heavy
@pytest.mark.parametrize("p", [0.5, 0.52, 0.45])
def test_biased_bits_are_amplified_as_documented(p: float) -> None:
    """Digits of completed walks. False alarm <= 1e-9 by Hoeffding's inequality.

    Walks that the end of a block cuts off are dropped, whatever their sign, so the counts are from
    blocks in which walks take 1 % of the bits. Power: without amplification the digit would be 1
    with probability p, 0.08 and 0.18 away at these biases.
    """
    bound, count, size = 5, 60, 4_096
    rng = np.random.default_rng(11)
    blocks = np.packbits(rng.random((count, 8 * size)) < p, axis=1)
    digits = [digit for block in blocks for digit in walk(block.tobytes(), bound)]
    expected = 1.0 / (1.0 + ((1.0 - p) / p) ** bound)
    allowed = math.sqrt(math.log(2.0 / 1e-9) / (2.0 * len(digits)))
    assert allowed < 0.02
    assert abs(np.mean(digits) - expected) <= allowed
    assert p == 0.5 or abs(p - expected) > 2.0 * allowed
    # The amplifier's statistic is the z-score of the same digits.
    statistics = RandomWalkAmplifier(bound).amplify(blocks).statistic
    for block, statistic in zip(blocks, statistics, strict=True):
        own = walk(block.tobytes(), bound)
        assert statistic == pytest.approx((2 * sum(own) - len(own)) / math.sqrt(len(own)))


@pytest.mark.parametrize(("size", "bound"), [(1, 1), (4, 1), (64, 4), (1_000, 15), (10_240, 50)])
def test_the_bound_follows_from_the_length(size: int, bound: int) -> None:
    amplifier = RandomWalkAmplifier()
    assert amplifier.bound(size) == bound
    assert RandomWalkAmplifier(7).bound(size) == 7
    if size >= 4:
        assert 8 * size >= TYPICAL_WALKS * bound**2
        assert 8 * size < TYPICAL_WALKS * (bound + 1) ** 2


def exact_mean_step(bits: int, bound: int) -> float:
    """Returns E 2**-K after *bits* fair bits, from the transition matrix of the walk."""
    width = 2 * bound - 1
    step = 0.5 * (np.eye(width, k=1) + np.eye(width, k=-1))
    step[0, bound - 1] += 0.25
    step[-1, bound - 1] += 0.25
    return float(np.linalg.matrix_power(step, bits)[bound - 1].sum())


@pytest.mark.parametrize("size", [1, 4, 16, 64, 256, 1_000, 10_240])
def test_the_documented_distance_is_a_bound(size: int) -> None:
    amplifier = RandomWalkAmplifier()
    resolution = amplifier.resolution(size)
    mean_step = exact_mean_step(8 * size, amplifier.bound(size))
    # Given K digits the distance is 2**-(K + 1), so its mean is half of that.
    assert mean_step / 2.0 <= resolution.ks_distance * (1.0 + 1e-9)
    assert resolution.ks_distance <= max(mean_step, 2.0**-53) * (1.0 + 1e-9)
    assert size < 4 or resolution.ks_distance < 2.5e-8


def test_blocks_have_the_typical_number_of_digits() -> None:
    size, count = 2_048, 400
    amplifier = RandomWalkAmplifier()
    rng = np.random.default_rng(3)
    result = amplifier.amplify(rng.integers(0, 256, (count, size), dtype=np.uint8))
    digits = -np.log2(result.lattice_step)
    bound = amplifier.bound(size)
    # An exit takes bound**2 bits on average and has variance 2 (bound**4 - bound**2) / 3.
    mean = 8 * size / bound**2
    deviation = math.sqrt(mean * 2.0 / 3.0)
    assert abs(digits.mean() - mean) < 6.0 * deviation / math.sqrt(count) + 0.5
    assert digits.min() >= 10
    assert 8 * size // bound**2 == 33
    assert amplifier.resolution(size).lattice_step == 2.0**-33


def test_a_block_without_an_exit_says_so() -> None:
    result = RandomWalkAmplifier(9).amplify(np.array([[0xFF]], dtype=np.uint8))
    assert (result.u[0], result.statistic[0], result.lattice_step[0]) == (0.5, 0.0, 1.0)


def test_the_strongest_signals_stay_inside_the_open_interval() -> None:
    blocks = np.array([[0x00] * 10_240, [0xFF] * 10_240], dtype=np.uint8)
    result = RandomWalkAmplifier().amplify(blocks)
    assert result.u.tolist() == [2.0**-53, 1.0 - 2.0**-53]


def test_a_walk_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="bound=0: the walk needs room"):
        RandomWalkAmplifier(0)


def test_system_like_blocks_give_uniform_numbers() -> None:
    """Kolmogorov-Smirnov, fixed seed. Critical distance for a false alarm of 1e-9."""
    count = 5_000
    blocks = np.random.default_rng(8).integers(0, 256, (count, 256), dtype=np.uint8)
    critical = math.sqrt(math.log(2.0 / 1e-9) / (2.0 * count))
    assert stats.kstest(RandomWalkAmplifier().amplify(blocks).u, "uniform").statistic <= critical
    biased = np.packbits(np.random.default_rng(8).random((count, 2_048)) < 0.51, axis=1)
    assert stats.kstest(RandomWalkAmplifier().amplify(biased).u, "uniform").statistic > critical
