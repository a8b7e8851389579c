# SPDX-License-Identifier: Apache-2.0
"""Ones and sums: the correlation from all 256 bytes, the joint law from its matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from qr_sampler.amplification.byte_sums import block_ones, block_sums
from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import ONES_SUM_CORRELATION, BlockBits

BYTES = np.arange(256)
ONES = np.array([byte.bit_count() for byte in range(256)])


def counted(blocks: np.ndarray, parts: int = 1) -> BlockBits:
    bits = BlockBits()
    for part in np.array_split(blocks, parts):
        bits.add(block_ones(part), block_sums(part), part.shape[1])
    return bits


def test_the_correlation_is_that_of_all_bytes() -> None:
    assert pytest.approx(np.corrcoef(BYTES, ONES)[0, 1], rel=1e-12) == ONES_SUM_CORRELATION
    assert pytest.approx(255 / math.sqrt(8 * 21_845)) == ONES_SUM_CORRELATION
    assert round(ONES_SUM_CORRELATION, 2) == 0.61


def test_the_joint_test_is_mahalanobis_distance() -> None:
    blocks = np.random.default_rng(1).integers(0, 256, (300, 40), dtype=np.uint8)
    n = blocks.size
    pair = np.array([block_ones(blocks).sum() - 4 * n, block_sums(blocks).sum() - 127.5 * n])
    covariance = n * np.cov(ONES, BYTES, bias=True)
    oracle = stats.chi2.sf(pair @ np.linalg.solve(covariance, pair), 2)
    for parts in (1, 7):
        assert counted(blocks, parts).joint_test().p_value == pytest.approx(oracle, rel=1e-9)
    normal = 2 * stats.norm.sf(abs(pair) / np.sqrt(np.diag(covariance)))
    both = [counted(blocks).ones_test().p_value, counted(blocks).sum_test().p_value]
    assert both == pytest.approx(normal.tolist(), rel=1e-9)
    rows = np.stack([block_ones(blocks) - 160, block_sums(blocks) - 5_100])
    distances = (rows * np.linalg.solve(40 * np.cov(ONES, BYTES, bias=True), rows)).sum()
    spread = counted(blocks).spread_test()
    assert spread.statistic == pytest.approx(distances)
    law = stats.chi2(600)
    assert spread.p_value == pytest.approx(2 * min(law.cdf(distances), law.sf(distances)))


def test_lengths_may_differ() -> None:
    bits, rng = BlockBits(), np.random.default_rng(2)
    blocks = [rng.integers(0, 256, (1, n), dtype=np.uint8) for n in (3, 30, 8)]
    for block in blocks:
        bits.add(block_ones(block), block_sums(block), block.shape[1])
    joined = counted(np.concatenate(blocks, axis=1))
    assert bits.joint_test().statistic == pytest.approx(joined.joint_test().statistic)


def test_each_test_sees_the_bias_that_it_is_for() -> None:
    rng = np.random.default_rng(3)
    fair = rng.integers(0, 256, (2_000, 64), dtype=np.uint8)
    # The lowest bit always set: ones move by half a bit a byte, the sum by half a unit.
    lowest = counted(fair | 1)
    assert lowest.ones_test().p_value < 1e-300
    assert lowest.sum_test().p_value > 1e-6
    assert lowest.joint_test().p_value < 1e-300
    # Every block all ones or all zeros in one byte of eight: no bias at all, only spread.
    wide = fair.copy()
    wide[:, :8] = 255 * (np.arange(2_000) % 2)[:, np.newaxis]
    assert counted(wide).spread_test().p_value < 1e-12 < counted(wide).joint_test().p_value
    assert counted(fair).joint_test().p_value > 1e-3
    assert counted(fair).spread_test().p_value > 1e-3


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (([9], [9], 1), "9 ones"),
        (([1], [256], 1), "the sum 256"),
        (([2], [1], 1), "cannot exist"),
        (([1, 2], [5], 1), "one of each"),
    ],
)
def test_impossible_counts_are_named(columns: tuple[object, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BlockBits().add(*columns)


def test_no_blocks_are_no_test() -> None:
    for test in (BlockBits().joint_test, BlockBits().spread_test):
        with pytest.raises(ConfigError, match="no blocks"):
            test()
