# SPDX-License-Identifier: Apache-2.0
"""Sums and bit counts of blocks against plain Python integers."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qr_sampler import BitZScoreAmplifier, SignalAmplifier, ZScoreMeanAmplifier
from qr_sampler.amplification.byte_sums import block_ones, block_sums, bytewise_ones
from qr_sampler.amplification.groups import amplify_groups

COUNTERS: list[Callable[[NDArray[np.uint8]], NDArray[np.intp]]] = [block_ones, bytewise_ones]
# Around the borders of tiles, folds and words, and the longest stretch that 16 bits can add up.
SIZES = [1, 7, 8, 9, 255, 256, 1_023, 1_024, 1_025, 1_031, 4_096, 10_240, 65_792, 65_799, 300_001]


def python_sum(block: NDArray[np.uint8]) -> int:
    return sum(block.tobytes())


def python_ones(block: NDArray[np.uint8]) -> int:
    return bin(int.from_bytes(block.tobytes(), "big")).count("1")


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("size", SIZES)
def test_blocks_of_any_length(count: int, size: int) -> None:
    blocks = np.random.default_rng(size).integers(0, 256, (count, size), dtype=np.uint8)
    assert block_sums(blocks).tolist() == [python_sum(block) for block in blocks]
    for ones in COUNTERS:
        assert ones(blocks).tolist() == [python_ones(block) for block in blocks]


@pytest.mark.parametrize("size", SIZES)
def test_the_largest_values_do_not_overflow(size: int) -> None:
    blocks = np.full((2, size), 255, dtype=np.uint8)
    assert block_sums(blocks).tolist() == [255 * size] * 2
    assert block_sums(blocks[:1]).tolist() == [255 * size]
    for ones in COUNTERS:
        assert ones(blocks).tolist() == [8 * size] * 2


def test_the_longest_block_does_not_overflow() -> None:
    blocks = np.broadcast_to(np.uint8(255), (2, 2**24 - 1))
    assert block_sums(blocks).tolist() == [255 * (2**24 - 1)] * 2
    assert block_sums(blocks[:1]).tolist() == [255 * (2**24 - 1)]
    assert block_ones(blocks[:1]).tolist() == [8 * (2**24 - 1)]


@given(st.binary(min_size=1, max_size=400), st.integers(1, 4), st.integers(0, 3))
def test_views_are_counted_where_they_lie(data: bytes, repeat: int, cut: int) -> None:
    whole = np.array([list(data)] * repeat, dtype=np.uint8)
    for view in (whole[:, cut:], whole[:, ::2], whole[::-1], np.asfortranarray(whole)):
        if view.shape[1]:
            assert block_sums(view).tolist() == [python_sum(line) for line in view]
            for ones in COUNTERS:
                assert ones(view).tolist() == [python_ones(line) for line in view]


def test_counting_works_without_the_function_of_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    blocks = np.random.default_rng(1).integers(0, 256, (3, 1_001), dtype=np.uint8)
    assert block_ones(blocks).tolist() == [python_ones(block) for block in blocks]


def peak_bytes(amplifier: SignalAmplifier, count: int, size: int) -> int:
    """Returns the most memory held at once while a batch of equal blocks is amplified."""
    data = np.zeros(count * size, dtype=np.uint8)
    sizes = np.full(count, size, dtype=np.intp)
    groups = [(amplifier, np.arange(count))]
    amplify_groups(data, sizes, groups)
    tracemalloc.start()
    amplify_groups(data, sizes, groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("amplifier", [ZScoreMeanAmplifier(), BitZScoreAmplifier()])
def test_equal_blocks_are_neither_copied_nor_widened(amplifier: SignalAmplifier) -> None:
    """64 blocks of 20,480 bytes are 1.3 MB; what is held beside them must not grow with them."""
    assert peak_bytes(amplifier, 64, 20_480) < 128 * 1024
    assert peak_bytes(amplifier, 64, 8 * 20_480) < 128 * 1024
    # The measurement sees what it is meant to exclude.
    widened = np.zeros((64, 20_480), dtype=np.uint8)
    tracemalloc.start()
    widened.astype(np.uint16)
    assert tracemalloc.get_traced_memory()[1] > 2_000_000
    tracemalloc.stop()
