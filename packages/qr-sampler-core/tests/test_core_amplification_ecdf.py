# SPDX-License-Identifier: Apache-2.0
"""Ranks among calibration sums: uniform whatever the law, with nothing heaped at the ends."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from qr_sampler import Baseline, ConfigError, ECDFAmplifier, Settings, ZScoreMeanAmplifier


def baseline(sums: list[int], block_bytes: int = 4) -> Baseline:
    return Baseline(
        source="device",
        source_distribution="",
        source_version="",
        byte_mean=127.0,
        byte_std=70.0,
        ones_fraction=0.49,
        byte_correlation_factor=1.0,
        bit_correlation_factor=1.0,
        blocks=len(sums),
        block_bytes=block_bytes,
        block_sums=tuple(sorted(sums)),
        wall_time_ns=1,
    )


def blocks_with_sums(sums: list[int] | NDArray[np.intp], size: int = 4) -> NDArray[np.uint8]:
    wanted = np.asarray(sums)[:, np.newaxis]
    return np.clip(wanted - 255 * np.arange(size), 0, 255).astype(np.uint8)


def u_of(calibration: list[int], sums: list[int]) -> list[float]:
    return ECDFAmplifier(baseline(calibration)).amplify(blocks_with_sums(sums)).u.tolist()


def peers_u(calibration: NDArray[np.intp], sums: NDArray[np.intp]) -> NDArray[np.float64]:
    """Returns (rank + 1) / (N + 1) with rank = #(calibration <= sum), as found in the field."""
    rank = np.searchsorted(np.sort(calibration), sums, side="right")
    return (rank + 1) / (calibration.size + 1)


def test_every_gap_has_its_midpoint() -> None:
    # N = 3: gaps of 1/4 each.
    assert u_of([10, 20, 30], [5, 15, 25, 35]) == [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    assert u_of([10, 20, 30], [10, 20, 30]) == [2 / 8, 4 / 8, 6 / 8]
    assert u_of([10, 10, 10, 40], [10, 5, 20, 40, 50]) == [4 / 10, 1 / 10, 7 / 10, 8 / 10, 9 / 10]


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_u_is_exactly_uniform_over_all_orders_of_distinct_sums(count: int) -> None:
    """The last of N + 1 exchangeable sums takes each of the N + 1 midpoints equally often."""
    values = [3, 7, 50, 51, 200, 900][: count + 1]
    seen: Counter[Fraction] = Counter()
    for *calibration, last in permutations(values):
        (u,) = u_of(calibration, [last])
        seen[Fraction(u).limit_denominator(100)] += 1
    midpoints = [Fraction(2 * gap + 1, 2 * (count + 1)) for gap in range(count + 1)]
    assert sorted(seen) == midpoints
    assert set(seen.values()) == {math.factorial(count)}


def test_ties_keep_the_mean_and_the_symmetry() -> None:
    """All triples of a law with ties: E u = 1/2 and u has the law of 1 - u for a mirrored law."""
    total, seen = Fraction(0), Counter[Fraction]()
    for first, second, last in product([10, 20, 20, 30], repeat=3):
        (u,) = u_of([first, second], [last])
        total += Fraction(u).limit_denominator(100)
        seen[Fraction(u).limit_denominator(100)] += 1
    assert total / 64 == Fraction(1, 2)
    assert {1 - u: count for u, count in seen.items()} == dict(seen)


def test_nothing_is_heaped_on_the_last_token_unlike_the_peers() -> None:
    """Mass of u within 1/(2N+2) of 1, by exact enumeration and by a test of known power.

    A block beyond all N calibration sums comes with probability 1 / (N + 1). With
    (rank + 1) / (N + 1) its u is 1, the very end, which is always the least probable token; with
    midpoints it is half a gap away. Test on 40,000 blocks with a calibration of their own: the
    number of u at or above 1 - 1e-9 must be 0. False alarm 0 (u <= (N + 1/2) / (N + 1) always).
    The peers' formula fails it unless no block of 40,000 is beyond its calibration, probability
    (1 - 1/101)**40000 < 1e-172.
    """
    count, trials = 100, 40_000
    rng = np.random.default_rng(5)
    beyond, ours_at_end, peers_at_end = 0, 0, 0
    for _ in range(40):
        sums = rng.integers(0, 1_021, (trials // 40, count + 1))
        for line in sums[:50]:
            calibration, last = line[:-1], line[-1:]
            (u,) = ECDFAmplifier(baseline(calibration.tolist())).amplify(blocks_with_sums(last)).u
            ours_at_end += int(u >= 1.0 - 1e-9)
            assert 0.0 < u <= (count + 0.5) / (count + 1)
        at_least = (sums[:, :-1] <= sums[:, -1:]).sum(axis=1)
        beyond += int((at_least == count).sum())
        peers_at_end += int(((at_least + 1) / (count + 1) >= 1.0 - 1e-9).sum())
    assert ours_at_end == 0
    assert peers_at_end == beyond > 0
    # P(beyond) = 1 / (N + 1) and a little more by ties: 6 standard errors around it.
    expected = trials / (count + 1)
    assert abs(beyond - expected) < 6.0 * math.sqrt(expected) + 0.06 * expected
    calibration, sums_ = np.array([10, 20, 30]), np.array([5, 15, 25, 35])
    assert peers_u(calibration, sums_).tolist() == [1 / 4, 2 / 4, 3 / 4, 1.0]


def test_a_skewed_device_gives_uniform_numbers() -> None:
    """Against its own calibration, N = 20,000, m = 5,000 blocks.

    Two-sample Kolmogorov-Smirnov in disguise: the distance is at most that of the calibration
    plus that of the sample, each within its own Massart bound at 5e-10, false alarm <= 1e-9.
    Against the ideal law the same blocks are far outside.
    """
    rng = np.random.default_rng(9)
    size, many, few = 16, 20_000, 5_000
    bits = rng.random((many + few, 8 * size)) < 0.53
    blocks = np.packbits(bits, axis=1)
    sums = blocks.sum(axis=1, dtype=np.int64)
    amplifier = ECDFAmplifier(baseline(sums[:many].tolist(), size))
    u = amplifier.amplify(blocks[many:]).u
    critical = sum(math.sqrt(math.log(2.0 / 5e-10) / (2.0 * n)) for n in (many, few)) + 0.005
    assert critical < 0.08
    assert stats.kstest(u, "uniform").statistic <= critical
    ideal = ZScoreMeanAmplifier().amplify(blocks[many:]).u
    assert stats.kstest(ideal, "uniform").statistic > critical


def test_results_carry_statistic_digest_and_step() -> None:
    frozen = baseline([100, 200, 300, 400, 500, 600, 700])
    result = ECDFAmplifier(frozen).amplify(blocks_with_sums([250, 600]))
    assert result.statistic.tolist() == [250.0, 600.0]
    assert result.baseline.item() == frozen.digest
    # Between neighbours 100 apart u moves by half a gap to each calibration sum.
    assert result.lattice_step.item() == pytest.approx(0.5 / 8)


def test_the_distance_includes_the_error_of_the_calibration() -> None:
    """The mean Kolmogorov distance of N points from their law, 0.87 / sqrt(N), by simulation."""
    count = 400
    rng = np.random.default_rng(2)
    distances = [stats.kstest(rng.random(count), "uniform").statistic for _ in range(600)]
    sums = np.linspace(0, 1_020, count).astype(int).tolist()
    resolution = ECDFAmplifier(baseline(sums)).resolution(4)
    assert resolution.calibration_error == pytest.approx(np.mean(distances), rel=0.06)
    assert resolution.calibration_error == pytest.approx(0.8687 / math.sqrt(count), rel=1e-3)
    assert resolution.ks_distance > resolution.calibration_error


def test_other_lengths_are_refused() -> None:
    amplifier = ECDFAmplifier(baseline([1, 2, 3]))
    for attempt in (
        lambda: amplifier.check_block(5),
        lambda: amplifier.resolution(5),
        lambda: amplifier.amplify(np.zeros((1, 5), dtype=np.uint8)),
    ):
        with pytest.raises(ConfigError, match="has 4 bytes per block and this one 5"):
            attempt()


def test_without_calibration_sums_there_is_no_rank(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set QR_BASELINE_FILE"):
        ECDFAmplifier.from_settings(Settings.load())
    empty = baseline([1, 2]).model_copy(update={"block_sums": ()})
    with pytest.raises(ConfigError, match="'device' has no block sums"):
        ECDFAmplifier(empty)
    path = tmp_path / "baseline.json"
    baseline([1, 2, 9]).save(path)
    settings = Settings.load(baseline_file=path, entropy_source_type="device")
    amplifier = ECDFAmplifier.from_settings(settings)
    assert amplifier.amplify(blocks_with_sums([5])).u.tolist() == [0.625]


def test_a_fallback_is_judged_by_the_ideal_law() -> None:
    assert isinstance(ECDFAmplifier(baseline([1, 2])).without_baseline(), ZScoreMeanAmplifier)
