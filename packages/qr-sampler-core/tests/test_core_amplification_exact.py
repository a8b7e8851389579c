# SPDX-License-Identifier: Apache-2.0
"""The amplifiers without a lattice: exactly uniform, by enumeration and by exact arithmetic."""

from __future__ import annotations

import math
import os
from collections import Counter
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import stats

from qr_sampler import ConfigError, ExactBitsAmplifier, ExactSumAmplifier, SignalAmplifier
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.amplification.exact import TIE_BYTES
from qr_sampler.amplification.laws.fair_bits import LAW_ERROR

AMPLIFIERS: list[SignalAmplifier] = [ExactSumAmplifier(), ExactBitsAmplifier()]
CELLS = 2**53


def statistic(amplifier: SignalAmplifier, deciding: bytes) -> int:
    if isinstance(amplifier, ExactSumAmplifier):
        return sum(deciding)
    return bin(int.from_bytes(deciding, "big")).count("1")


def cell_of(tie: bytes) -> int:
    """Returns the first 53 bits of seven bytes."""
    return int.from_bytes(tie, "big") >> 3


def exact_u(amplifier: SignalAmplifier, block: bytes) -> Fraction:
    """Returns P(S < s) + (k + 1/2) / 2**53 * P(S = s), all blocks of one or two bytes counted."""
    deciding, tie = block[:-TIE_BYTES], block[-TIE_BYTES:]
    value = statistic(amplifier, deciding)
    others = [statistic(amplifier, bytes(b)) for b in product(range(256), repeat=len(deciding))]
    less, equal = sum(other < value for other in others), others.count(value)
    v = Fraction(2 * cell_of(tie) + 1, 2 * CELLS)
    return (less + v * equal) / Fraction(256 ** len(deciding))


def u_of(amplifier: SignalAmplifier, *blocks: bytes) -> list[float]:
    return amplifier.amplify(np.array([list(block) for block in blocks], dtype=np.uint8)).u.tolist()


@pytest.mark.parametrize("amplifier", AMPLIFIERS)
@pytest.mark.parametrize("deciding", [1, pytest.param(2, marks=pytest.mark.heavy)])
def test_u_is_the_rational_number_of_the_definition(
    amplifier: SignalAmplifier, deciding: int
) -> None:
    rng = np.random.default_rng(deciding)
    blocks = [rng.bytes(deciding + TIE_BYTES) for _ in range(20)]
    blocks += [b"\x00" * (deciding + TIE_BYTES), b"\xff" * (deciding + TIE_BYTES)]
    blocks += [b"\x80" * deciding + b"\x00" * TIE_BYTES, b"\x7f" * deciding + b"\xff" * TIE_BYTES]
    for u, block in zip(u_of(amplifier, *blocks), blocks, strict=True):
        assert abs(Fraction(u) - exact_u(amplifier, block)) < LAW_ERROR
        assert 0.0 < u < 1.0


@pytest.mark.parametrize("amplifier", AMPLIFIERS)
@pytest.mark.parametrize("deciding", [1, 2])
def test_the_cells_of_u_tile_the_unit_interval(amplifier: SignalAmplifier, deciding: int) -> None:
    """Exact uniformity over rationals: a value s with tie k owns a cell as wide as its probability.

    The cells of all (s, k) follow one another without gap or overlap from 0 to 1, and u is the
    midpoint. Ends of the ties are enough: in between, u is linear in k.
    """
    blocks = list(product(range(256), repeat=deciding))
    values = [statistic(amplifier, bytes(block)) for block in blocks]
    representative = dict(zip(values, blocks, strict=True))
    edge, total = Fraction(0), Fraction(256**deciding)
    ordered = sorted(representative)
    counts = Counter(values)
    lowest = u_of(amplifier, *(bytes(representative[s]) + b"\x00" * TIE_BYTES for s in ordered))
    highest = u_of(amplifier, *(bytes(representative[s]) + b"\xff" * TIE_BYTES for s in ordered))
    for value, low, high in zip(ordered, lowest, highest, strict=True):
        width = counts[value] / total
        half_cell = width / (2 * CELLS)
        assert abs(Fraction(low) - (edge + half_cell)) < LAW_ERROR
        edge += width
        assert abs(Fraction(high) - (edge - half_cell)) < LAW_ERROR
    assert edge == 1


@pytest.mark.parametrize("amplifier", AMPLIFIERS)
def test_u_is_linear_in_the_tie(amplifier: SignalAmplifier) -> None:
    rng = np.random.default_rng(5)
    deciding = rng.bytes(3)
    ties = [rng.bytes(TIE_BYTES) for _ in range(50)]
    low, high, *us = u_of(
        amplifier,
        deciding + b"\x00" * TIE_BYTES,
        deciding + b"\xff" * TIE_BYTES,
        *(deciding + tie for tie in ties),
    )
    for u, tie in zip(us, ties, strict=True):
        share = cell_of(tie) / (CELLS - 1)
        assert u == pytest.approx(low + share * (high - low), abs=LAW_ERROR)


def test_the_end_of_the_block_breaks_ties_and_decides_nothing_else() -> None:
    rng = np.random.default_rng(6)
    blocks = rng.integers(0, 256, (200, 1_000), dtype=np.uint8)
    others = blocks.copy()
    others[:, -TIE_BYTES:] = rng.integers(0, 256, (200, TIE_BYTES), dtype=np.uint8)
    for amplifier in AMPLIFIERS:
        one, two = amplifier.amplify(blocks), amplifier.amplify(others)
        assert one.statistic.tolist() == two.statistic.tolist()
        assert one.u.tolist() != two.u.tolist()
    counts = np.unpackbits(blocks[:, :-TIE_BYTES], axis=1).sum(axis=1)
    result = ExactBitsAmplifier().amplify(blocks)
    bits = 8 * (1_000 - TIE_BYTES)
    law = stats.binom(bits, 0.5)
    np.testing.assert_allclose(
        result.statistic, (counts - bits / 2) / math.sqrt(bits / 4), rtol=1e-12, atol=1e-12
    )
    # Equality is possible where the tie is at an end.
    assert (result.u >= law.cdf(counts - 1) - 1e-12).all()
    assert (result.u <= law.cdf(counts) + 1e-12).all()


def test_more_signal_means_a_larger_u() -> None:
    for amplifier in AMPLIFIERS:
        rng = np.random.default_rng(7)
        result = amplifier.amplify(rng.integers(0, 256, (2_000, 100), dtype=np.uint8))
        order = np.argsort(result.u)
        assert (np.diff(result.statistic[order]) >= 0.0).all()


@pytest.mark.parametrize("amplifier", AMPLIFIERS)
def test_extreme_blocks_stay_inside_the_open_interval(amplifier: SignalAmplifier) -> None:
    for size in (8, 100, 10_240):
        low, high = u_of(amplifier, b"\x00" * size, b"\xff" * size)
        assert U_MIN <= low < 1e-2
        assert 1.0 - 1e-2 < high <= U_MAX


@pytest.mark.parametrize("amplifier", AMPLIFIERS)
@pytest.mark.parametrize("size", [1, TIE_BYTES])
def test_blocks_without_a_deciding_byte_are_refused(amplifier: SignalAmplifier, size: int) -> None:
    name = "exact_sum" if isinstance(amplifier, ExactSumAmplifier) else "exact_bits"
    said = f"{name} keeps 7 bytes.*the block has {size}; use blocks of 8 bytes or more"
    for attempt in (
        lambda: amplifier.check_block(size),
        lambda: amplifier.resolution(size),
        lambda: amplifier.amplify(np.zeros((1, size), dtype=np.uint8)),
    ):
        with pytest.raises(ConfigError, match=said):
            attempt()
    amplifier.check_block(TIE_BYTES + 1)


@pytest.mark.parametrize("amplifier", AMPLIFIERS)
def test_the_resolution_is_that_of_float64(amplifier: SignalAmplifier) -> None:
    resolution = amplifier.resolution(10_240)
    assert resolution is not None
    assert resolution.lattice_step == 2.0**-53
    assert resolution.ks_distance < 2e-14


@pytest.mark.parametrize("amplifier", AMPLIFIERS)
@pytest.mark.parametrize("size", [8, 9, 20, 256])
def test_system_bytes_of_any_length_give_uniform_numbers(
    amplifier: SignalAmplifier, size: int
) -> None:
    """Kolmogorov-Smirnov with the bound of Dvoretzky, Kiefer, Wolfowitz and Massart.

    False alarm <= 1e-9. Power: at one deciding byte the z-score of bit counts is 0.137 away from
    uniform, more than twice the critical distance, so it fails the same test with certainty.
    """
    count = 20_000
    blocks = np.frombuffer(os.urandom(count * size), dtype=np.uint8).reshape(count, size)
    critical = math.sqrt(math.log(2.0 / 1e-9) / (2.0 * count))
    assert critical < 0.0232
    result = amplifier.amplify(blocks)
    assert stats.kstest(result.u, "uniform").statistic <= critical
    if size == 8 and isinstance(amplifier, ExactBitsAmplifier):
        coarse = stats.norm.cdf(result.statistic)
        assert stats.kstest(coarse, "uniform").statistic > critical
