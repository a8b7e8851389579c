# SPDX-License-Identifier: Apache-2.0
"""The z-score amplifier against exact arithmetic and SciPy."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from qr_sampler import AmplificationResult, Settings, SignalAmplifier, ZScoreMeanAmplifier
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.amplification.base import clamp_to_open_interval
from qr_sampler.amplification.laws.normal import normal_cdf
from qr_sampler.arrays import ByteBlocks
from qr_sampler.settings import BYTE_MEAN, BYTE_STD


def exact_z(block: bytes) -> Decimal:
    """Returns (mean - mu) / (sigma / sqrt(n)) with 50 digits, sigma from all 256 values."""
    with localcontext() as context:
        context.prec = 50
        mean = Decimal(sum(range(256))) / 256
        variance = sum((Decimal(value) - mean) ** 2 for value in range(256)) / 256
        count = Decimal(len(block))
        return (Decimal(sum(block)) / count - mean) / (variance / count).sqrt()


def amplify(*blocks: bytes) -> tuple[list[float], list[float]]:
    array = np.array([list(block) for block in blocks], dtype=np.uint8)
    result = ZScoreMeanAmplifier().amplify(array)
    return result.u.tolist(), result.statistic.tolist()


def test_byte_constants_by_enumeration() -> None:
    values = range(256)
    mean = sum(values) / 256
    assert BYTE_MEAN == mean == 127.5
    assert math.sqrt(sum((value - mean) ** 2 for value in values) / 256) == BYTE_STD
    assert pytest.approx(73.9003, abs=5e-5) == BYTE_STD
    # What a continuous uniform law on [0, 255] would have.
    assert abs(BYTE_STD - 255.0 / math.sqrt(12.0)) > 0.28


@given(st.binary(min_size=1, max_size=600))
def test_z_is_exact_to_a_few_roundings(block: bytes) -> None:
    (u,), (z,) = amplify(block)
    assert z == pytest.approx(float(exact_z(block)), rel=1e-15)
    assert u == pytest.approx(NormalDist().cdf(z), rel=1e-12, abs=1e-15)
    assert 0.0 < u < 1.0


@pytest.mark.parametrize("count", [1, 2, 255, 256, 10_240, 65_536])
def test_the_standard_error_comes_from_the_actual_count(count: int) -> None:
    data = np.random.default_rng(count).integers(0, 256, (3, count), dtype=np.uint8)
    result = ZScoreMeanAmplifier().amplify(data)
    standard_error = BYTE_STD / math.sqrt(count)
    expected = (data.mean(axis=1, dtype=np.float64) - BYTE_MEAN) / standard_error
    np.testing.assert_allclose(result.statistic, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(result.u, stats.norm.cdf(expected), rtol=1e-9)


def test_quadrupling_a_block_doubles_its_z_score() -> None:
    block = b"\x10\xf0\xf7\x99\xa0"
    _, (once,) = amplify(block)
    _, (four,) = amplify(block * 4)
    assert four == pytest.approx(2.0 * once, rel=1e-15)


@pytest.mark.parametrize("count", [64, 256, 10_240])
def test_extreme_blocks_reach_the_ends_of_the_open_interval(count: int) -> None:
    us, zs = amplify(b"\x00" * count, b"\xff" * count)
    assert us == [U_MIN, U_MAX]
    assert zs[0] == -zs[1] == pytest.approx(-127.5 * math.sqrt(count) / BYTE_STD)


def test_single_bytes() -> None:
    us, zs = amplify(*(bytes([value]) for value in range(256)))
    assert us == sorted(us)
    assert zs[0] == pytest.approx(-127.5 / BYTE_STD)
    assert us[0] == pytest.approx(NormalDist().cdf(-127.5 / BYTE_STD), rel=1e-13)


@given(st.binary(min_size=1, max_size=100))
def test_complementing_the_bytes_mirrors_u(block: bytes) -> None:
    (u, mirrored), (z, opposite) = amplify(block, bytes(255 - value for value in block))
    assert z == -opposite
    assert u + mirrored == pytest.approx(1.0, abs=2e-16)


def test_order_of_the_bytes_does_not_matter_and_rows_are_independent() -> None:
    blocks = np.random.default_rng(2).integers(0, 256, (50, 300), dtype=np.uint8)
    together = ZScoreMeanAmplifier().amplify(blocks)
    for line, block in enumerate(blocks):
        alone = ZScoreMeanAmplifier().amplify(np.sort(block)[np.newaxis])
        assert alone.u[0] == together.u[line]
        assert alone.statistic[0] == together.statistic[line]


def test_large_blocks_do_not_overflow() -> None:
    (u,), (z,) = amplify(b"\xff" * 2**20)
    assert z == pytest.approx(127.5 * 2**10 / BYTE_STD)
    assert u == U_MAX


def test_population_comes_from_the_settings() -> None:
    settings = Settings.load(population_mean=100.0, population_std=10.0)
    amplifier = ZScoreMeanAmplifier.from_settings(settings)
    result = amplifier.amplify(np.full((1, 4), 105, dtype=np.uint8))
    assert result.statistic[0] == pytest.approx(1.0)
    defaults = ZScoreMeanAmplifier.from_settings(Settings.load())
    assert (defaults.mean, defaults.std) == (BYTE_MEAN, BYTE_STD)


@pytest.mark.parametrize("count", [1, 2, 16, 10_240])
def test_the_lattice_step_is_the_widest_gap_between_neighbouring_sums(count: int) -> None:
    middle = 255 * count // 2
    sums = np.arange(max(middle - 20, 0), min(middle + 21, 255 * count + 1))
    u = stats.norm.cdf((sums - 127.5 * count) / (BYTE_STD * math.sqrt(count)))
    resolution = ZScoreMeanAmplifier().resolution(count)
    # An even number of bytes has a sum at the median itself, where the gap next to it is smaller.
    assert resolution.lattice_step == pytest.approx(np.diff(u).max(), rel=1e-4 / count)
    assert resolution.calibration_error == 0.0
    blocks = np.zeros((2, count), dtype=np.uint8)
    result = ZScoreMeanAmplifier().amplify(blocks)
    assert result.lattice_step.item() == resolution.lattice_step


def test_the_documented_gaps() -> None:
    """5.4e-5 at 10,000 bytes, 3.8e-5 at 20,480 and 1.7e-4 at 1,000, as measured elsewhere."""
    steps = {n: ZScoreMeanAmplifier().resolution(n).lattice_step for n in (1_000, 10_000, 20_480)}
    assert steps == {
        1_000: pytest.approx(1.7e-4, rel=0.02),
        10_000: pytest.approx(5.4e-5, rel=0.01),
        20_480: pytest.approx(3.8e-5, rel=0.01),
    }


def test_another_deviation_scales_the_resolution() -> None:
    ideal, narrow = ZScoreMeanAmplifier(), ZScoreMeanAmplifier(std=BYTE_STD / 4.0)
    one, two = ideal.resolution(1_000), narrow.resolution(1_000)
    assert two.ks_distance == pytest.approx(4.0 * one.ks_distance)
    assert two.lattice_step == pytest.approx(4.0 * one.lattice_step, rel=1e-5)


class Plain(SignalAmplifier):
    """The least that an amplifier has to say."""

    def amplify(self, blocks: ByteBlocks, counts: object = None) -> AmplificationResult:
        u = np.full(len(blocks), 0.5)
        return AmplificationResult(u=u, statistic=u)


def test_what_an_amplifier_need_not_say() -> None:
    plain = Plain.from_settings(Settings.load())
    plain.check_block(1)
    assert plain.resolution(1) is None
    assert plain.without_baseline() is plain
    result = plain.amplify(np.zeros((3, 1), dtype=np.uint8))
    assert math.isnan(result.lattice_step.item())
    assert result.baseline.item() == ""


def test_normal_cdf_against_scipy() -> None:
    z = np.concatenate([np.linspace(-37.0, 9.0, 40_001), np.linspace(-1e-3, 1e-3, 1_001), [0.0]])
    np.testing.assert_allclose(normal_cdf(z), special.ndtr(z), rtol=1e-12)
    assert normal_cdf(np.zeros(1))[0] == 0.5
    assert (np.diff(normal_cdf(np.linspace(-37.0, 9.0, 40_001))) >= 0.0).all()


def test_clamp_moves_the_ends_and_nothing_else() -> None:
    values = np.array([0.0, 5e-324, U_MIN, 0.3, U_MAX, 1.0])
    assert clamp_to_open_interval(values).tolist() == [U_MIN, U_MIN, U_MIN, 0.3, U_MAX, U_MAX]
    assert np.nextafter(U_MAX, 2.0) == 1.0
    assert U_MIN == 1.0 - U_MAX
