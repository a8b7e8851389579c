# SPDX-License-Identifier: Apache-2.0
"""Pivots that enclose the logit at which a running total reaches a goal, as compiled loops."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler.arrays import Logits
from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.arithmetic.masses import (
    LANES,
    MassMemory,
    fill_masses,
    mass_memory,
    whole_sum,
)

__all__ = [
    "DescentMemory",
    "State",
    "descent_memory",
    "key_of",
    "memory_around",
    "number_of",
    "pivots",
    "rank_few",
    "share_of",
    "weigh",
]

SPARSE: Final = 8
"""Tokens that are fewer than one in so many are gathered before they are sampled."""

MULTIPLIER, INCREMENT, WORD = 1_664_525, 1_013_904_223, 0xFFFFFFFF
"""A linear congruential generator of 32 bits (Press et al., Numerical Recipes, section 7.1)."""


class State(NamedTuple):
    """What a descent has narrowed the tokens down to."""

    low: int
    """The key of the smallest logit that they may have."""
    high: int
    """The key of the largest one."""
    size: int
    """Number of tokens."""
    total: float
    """Their mass."""
    rank: int
    """Number of tokens above."""
    mass: float
    """Their mass."""


class DescentMemory(NamedTuple):
    """The working memory of a descent."""

    buffers: NDArray[np.float32]
    """Shape ``(3, V)``."""
    sample: Logits
    """Shape ``(LANES,)``."""
    cell: Logits
    """Shape ``(1,)``."""
    cell_bits: NDArray[np.int32]
    """The same, seen as an integer."""
    distance: Logits
    """Shape ``(LANES,)``."""
    marks: NDArray[np.uint8]
    """Shape ``(2, LANES)``."""
    places: NDArray[np.int32]
    """Shape ``(LANES,)``."""
    chosen: Logits
    """Shape ``(LANES,)``."""
    masses: MassMemory
    """What ``fill_masses`` works with."""


@compiled
def descent_memory(size):  # type: ignore[no-untyped-def]
    """Returns the working memory for rows of *size* tokens."""
    return memory_around(np.empty((3, size), dtype=np.float32))


@compiled
def memory_around(buffers):  # type: ignore[no-untyped-def]
    """Returns the working memory with the given *buffers*. Shape ``(3, V)``."""
    cell = np.empty(1, dtype=np.float32)
    return DescentMemory(
        buffers,
        np.empty(LANES, dtype=np.float32),
        cell,
        cell.view(np.int32),
        np.empty(LANES, dtype=np.float32),
        np.empty((2, LANES), dtype=np.uint8),
        np.empty(LANES, dtype=np.int32),
        np.empty(LANES, dtype=np.float32),
        mass_memory(),
    )


@compiled
def _key(bits):  # type: ignore[no-untyped-def]
    """Returns an integer that orders float32 numbers as they are, from their *bits*."""
    # Both zeros have the key 0.
    return np.int64(bits) if bits >= 0 else -(np.int64(bits) & 0x7FFFFFFF)


@compiled
def key_of(number, memory):  # type: ignore[no-untyped-def]
    """Returns the key of a float32 number."""
    memory.cell[0] = number
    return _key(memory.cell_bits[0])


@compiled
def number_of(key, memory):  # type: ignore[no-untyped-def]
    """Returns the float32 number that has a key."""
    memory.cell_bits[0] = np.int32(key) if key >= 0 else np.int32(-key - 0x80000000)
    return memory.cell[0]


@compiled
def weigh(values, count, row, memory):  # type: ignore[no-untyped-def]
    """Returns the mass of the first *count* logits."""
    maximum, inverse, unit = row
    total = 0.0
    for start in range(0, count, LANES):
        size = min(LANES, count - start)
        for j in range(size):
            memory.distance[j] = values[start + j] - maximum
        fill_masses(memory.distance, size, inverse, unit, *memory.masses)
        total += whole_sum(memory.masses[2], size)
    return total


@compiled
def share_of(goal, counts, state):  # type: ignore[no-untyped-def]
    """Returns what the *goal* inside a state is of its number of tokens or of its mass."""
    return goal / state.size if counts else goal / state.total


@compiled
def sort_few(values, count, places, into):  # type: ignore[no-untyped-def]
    """Writes the first *count* values, LANES at most, to another place, largest first.

    Counting how many come before takes no branch, and many comparisons at a time.
    """
    places[:count] = 0
    for i in range(count):
        x = values[i]
        for j in range(count):
            places[j] += np.int32((values[j] < x) | ((values[j] == x) & (i < j)))
    for i in range(count):
        into[places[i]] = values[i]


@compiled
def _sample(values, count, ends, seed, sample):  # type: ignore[no-untyped-def]
    """Writes logits from one end to the other, drawn at random.

    Returns how many they are, and the next seed.
    """
    found = 0
    for _ in range(sample.size):
        seed = (seed * MULTIPLIER + INCREMENT) & WORD
        x = values[(seed * count) >> 32]
        sample[found] = x
        found += ends[0] <= x <= ends[1]
    return found, seed


@compiled
def rank_few(values, count, row, memory):  # type: ignore[no-untyped-def]
    """Sorts up to LANES logits into the sample of the memory, and writes their masses there."""
    sort_few(values, count, memory.places, memory.sample)
    weigh(memory.sample, count, row, memory)


@compiled
def _place(share, counts, found, masses):  # type: ignore[no-untyped-def]
    """Returns which logit of a sorted sample has a share of its number or of its mass above it."""
    if counts:
        return min(int(share * found), found - 1)
    goal, running, place = share * whole_sum(masses, found), masses[0], 0
    while running < goal and place < found - 1:
        place += 1
        running += masses[place]
    return place


@compiled
def pivots(values, count, state, goal, counts, sampled, seed, row, memory):  # type: ignore[no-untyped-def]
    """Returns the smaller and the larger pivot, between which the goal is likely to be reached.

    They are the ends of the state, which gathers its tokens, if these are few among the values.
    Not *sampled*, they halve its range. The third number returned is the next seed.
    """
    low, high = number_of(state.low, memory), number_of(state.high, memory)
    if state.size <= LANES or SPARSE * state.size < count:
        return low, high, seed
    if not sampled:
        middle = number_of((state.low + state.high) >> 1, memory)
        return middle, middle, seed
    found, seed = _sample(values, count, (low, high), seed, memory.chosen)
    if not found:
        return low, high, seed
    rank_few(memory.chosen, found, row, memory)
    sample, share = memory.sample, share_of(goal, counts, state)
    place = _place(share, counts, found, memory.masses[2])
    # Three standard deviations of the place of a quantile among so many.
    spread = int(3.0 * np.sqrt(found * share * (1.0 - share))) + 1
    if place >= spread:
        high = sample[place - spread]
    if place + spread < found:
        low = sample[place + spread]
    enclosed = 0
    for i in range(found):
        enclosed += low <= sample[i] <= high
    if 2 * enclosed > found:
        # Ties, or few logits: the pivot itself leaves less than its neighbours enclose.
        low = high = sample[place]
    return low, high, seed
