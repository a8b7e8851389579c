# SPDX-License-Identifier: Apache-2.0
"""How often neighbours differ by the same, modulo 256."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.health_pass.words import LOW_BITS, TOP_BITS, U64

__all__ = ["most_frequent_difference"]

COUNTED_WORDS: Final = 2048
"""Words whose differences are counted in one byte each: good ones leave it at 16 on average."""


@compiled
def most_frequent_difference(data, counts, small):  # type: ignore[no-untyped-def]
    """Returns how often the most frequent difference of neighbours, modulo 256, occurs.

    Counting takes as long as its stores, and those to few lines of the cache are fastest: counts
    have one byte each, and pieces for which that is too little are counted again.
    """
    length = (data.size - 1) // 8
    before, after = data[: 8 * length].view(U64), data[1 : 1 + 8 * length].view(U64)
    counts[:] = 0
    for start in range(0, length, COUNTED_WORDS):
        end = min(start + COUNTED_WORDS, length)
        _count_differences(before[start:end], after[start:end], small)
        # Every time that a count goes beyond its byte, their sum falls short by 256.
        if _added(small, counts, 1) != 8 * (end - start):
            _added(small, counts, -1)
            _count_one_by_one(data[8 * start : 8 * end + 1], counts)
    _count_one_by_one(data[8 * length :], counts)
    largest = counts[0]
    for value in range(256):
        largest = max(largest, counts[value])
    return largest


@compiled
def _count_differences(before, after, small):  # type: ignore[no-untyped-def]
    """Counts the differences of bytes in four tables, modulo 256.

    Eight differences at once are those of two words, byte by byte (Warren, Hacker's Delight, 2-18).
    """
    small[:] = 0
    # A table for every fourth one: counting the same one twice in a row would wait.
    for i in range(after.size):
        x, y = after[i], before[i]
        d = ((x | TOP_BITS) - (y & LOW_BITS)) ^ ((x ^ ~y) & TOP_BITS)
        small[d & U64(255)] += 1
        small[U64(256) + ((d >> U64(8)) & U64(255))] += 1
        small[U64(512) + ((d >> U64(16)) & U64(255))] += 1
        small[U64(768) + ((d >> U64(24)) & U64(255))] += 1
        small[(d >> U64(32)) & U64(255)] += 1
        small[U64(256) + ((d >> U64(40)) & U64(255))] += 1
        small[U64(512) + ((d >> U64(48)) & U64(255))] += 1
        small[U64(768) + (d >> U64(56))] += 1


@compiled
def _added(small, counts, times):  # type: ignore[no-untyped-def]
    """Adds what was counted in all four tables so many times, and returns how much that is."""
    total = 0
    for value in range(256):
        count = (
            np.int64(small[value]) + small[256 + value] + small[512 + value] + small[768 + value]
        )
        counts[value] += times * count
        total += count
    return total


@compiled
def _count_one_by_one(data, counts):  # type: ignore[no-untyped-def]
    """Counts the differences of neighbours, one after the other."""
    for i in range(1, data.size):
        counts[(np.int64(data[i]) - np.int64(data[i - 1])) & 255] += 1
