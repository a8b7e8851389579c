# SPDX-License-Identifier: Apache-2.0
"""Where a running total over crowded bins reaches a goal, as compiled loops.

Two pivots from a sample of the logits enclose the goal narrowly, so that one round usually leaves
a fifth of the tokens, and a few rounds a handful that are sorted. If the goal is between pivots
that are equal, the logit is found. Should samples mislead, pivots halve the range of float32
numbers instead, after which 32 rounds leave a single number: no row takes more than
``MOST_ROUNDS`` rounds, each over what the one before has left.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler.arrays import Logits
from qr_sampler.selection.fast.bins import BINS, BinnedRow, bin_scale
from qr_sampler.selection.fast.descent import Goal, Held, Landing
from qr_sampler_accel.host.masses import LANES, MassMemory, compiled, fill_masses, whole_sum

__all__ = ["MOST_ROUNDS", "DescentMemory", "land"]

SAMPLE: Final = LANES
"""Most logits that pivots are chosen from."""

SAMPLED_ROUNDS: Final = 8
"""Rounds with pivots from samples; later ones halve the range."""

MOST_ROUNDS: Final = SAMPLED_ROUNDS + 33
"""A range of float32 numbers is halved 32 times at most before one of them is left."""

LOWEST_KEY: Final = -0x7F800000
"""The key of -inf."""


@compiled
def _key(value, cell, cell_bits):  # type: ignore[no-untyped-def]
    """Returns an integer that orders float32 numbers; both zeros have 0."""
    cell[0] = value
    bits = np.int64(cell_bits[0])
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


@compiled
def _number(key, cell, cell_bits):  # type: ignore[no-untyped-def]
    """Returns the float32 number that has a key."""
    cell_bits[0] = np.int32(key) if key >= 0 else np.int32(-key - 0x80000000)
    return cell[0]


@compiled
def _lowest_key(last, maximum, scale, cell, cell_bits):  # type: ignore[no-untyped-def]
    """Returns the key of the smallest logit whose bin is *last* or one before it."""
    low, high = np.int64(LOWEST_KEY), _key(maximum, cell, cell_bits)
    while low < high:
        middle = (low + high) >> 1
        d = max(_number(middle, cell, cell_bits) - maximum, scale[0])
        if np.int32(d * scale[1]) <= last:
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def _weigh(values, count, row, distance, mass_memory):  # type: ignore[no-untyped-def]
    """Returns the mass of the first *count* logits."""
    maximum, inverse, unit = row
    total = 0.0
    for start in range(0, count, LANES):
        size = min(LANES, count - start)
        for j in range(size):
            distance[j] = values[start + j] - maximum
        fill_masses(distance, size, inverse, unit, *mass_memory)
        total += whole_sum(mass_memory[2], size)
    return total


@compiled
def _sample(values, count, size, turn, low, high, sample):  # type: ignore[no-untyped-def]
    """Writes some of the *size* logits from *low* to *high*, largest first; returns how many."""
    stride = size // SAMPLE + 1
    found = 0
    for j in range(turn % stride, count, stride):
        x = values[j]
        if low <= x <= high and found < sample.size:
            place = found
            while place and sample[place - 1] < x:
                sample[place] = sample[place - 1]
                place -= 1
            sample[place] = x
            found += 1
    return found


@compiled
def _place(share, counts, sample, found, row, distance, mass_memory):  # type: ignore[no-untyped-def]
    """Returns how many logits of a sorted sample have a share of its number or of its mass."""
    if counts:
        return int(share * found)
    total = _weigh(sample, found, row, distance, mass_memory)
    running = 0.0
    for place in range(found):
        running += mass_memory[2][place]
        if running >= share * total:
            return place
    return found


@compiled
def _pivots(values, count, size, turn, keys, share, counts, row, memory, mass_memory):  # type: ignore[no-untyped-def]
    """Returns two logits, the smaller one first, between which the goal is likely to be reached.

    *share* is what the goal is of the total, *keys* those of the smallest and the largest logit.
    """
    _, sample, cell, cell_bits, distance = memory
    bottom, top = _number(keys[0], cell, cell_bits), _number(keys[1], cell, cell_bits)
    found = 0
    if turn < SAMPLED_ROUNDS:
        found = _sample(values, count, size, turn, bottom, top, sample)
    if not found:
        middle = _number((keys[0] + keys[1]) >> 1, cell, cell_bits)
        return middle, middle
    place = _place(share, counts, sample, found, row, distance, mass_memory)
    low, high = bottom, top
    # Three standard deviations of the place of a quantile among so many.
    spread = int(1.5 * np.sqrt(found)) + 1
    if place >= spread:
        high = sample[place - spread]
    if place + spread < found:
        low = sample[place + spread]
    if low == bottom and high == top and size > LANES:
        # Ties have to go: with both pivots equal they are told apart from all others.
        low = high = sample[found // 2]
    return low, high


@compiled
def _part(values, count, pivots, above, inside, below):  # type: ignore[no-untyped-def]
    """Parts logits at two pivots and returns the size of each part.

    One of the parts may be written over *values*.
    """
    low, high = pivots
    a = i = b = 0
    for j in range(count):
        x = values[j]
        above[a] = x
        a += x > high
        inside[i] = x
        i += (x >= low) & (x <= high)
        below[b] = x
        b += x < low
    return a, i, b


@compiled
def _part_row(logits, ends, pivots, above_first, outer, inside):  # type: ignore[no-untyped-def]
    """Does the same for those logits of a row that are from one end to the other.

    Writes only one of the outer parts: that above both pivots or that below them.
    """
    low, high = pivots
    first, last = (high, ends[1]) if above_first else (ends[0], low)
    o = i = 0
    for j in range(logits.size):
        x = logits[j]
        is_inside = (x >= low) & (x <= high)
        inside[i] = x
        i += is_inside
        outer[o] = x
        o += (x >= first) & (x <= last) & (not is_inside)
    return o, i


@compiled
def _finish(values, count, row, goal, counts, distance, mass_memory):  # type: ignore[no-untyped-def]
    """Sorts up to LANES logits; returns where they reach the goal, and rank and mass above."""
    for i in range(1, count):
        x, place = values[i], i
        while place and values[place - 1] < x:
            values[place] = values[place - 1]
            place -= 1
        values[place] = x
    _weigh(values, count, row, distance, mass_memory)
    total, rank, mass = 0.0, 0, 0.0
    for i in range(count):
        if i and values[i] < values[i - 1]:
            rank, mass = i, total
        total += mass_memory[2][i]
        if (i + 1.0 if counts else total) >= goal:
            break
    return values[rank], rank, mass


@compiled
def _weigh_parts(buffers, outer, inside, equal, row, distance, mass_memory):  # type: ignore[no-untyped-def]
    """Returns the masses of two parts, each given as its buffer and its number of tokens.

    Those inside are all alike where the pivots are *equal*. In one loop, which is compiled once.
    """
    masses = (0.0, 0.0)
    for turn in range(2):
        place, count = inside if turn else outer
        alike = turn and equal
        mass = _weigh(buffers[place], min(count, 1) if alike else count, row, distance, mass_memory)
        masses = (masses[1], mass * count if alike else mass)
    return masses


@compiled
def _part_with_goal(goal, counts, above, inside):  # type: ignore[no-untyped-def]
    """Returns in which part the goal is reached: 0 above, 1 inside or 2 below the pivots.

    The parts are pairs of a number of tokens and a mass.
    """
    of_above, of_inside = above[1], inside[1]
    if counts:
        of_above, of_inside = float(above[0]), float(inside[0])
    return 0 if goal <= of_above else 1 if goal <= of_above + of_inside else 2


@compiled
def _narrowed(state, part, above, inside, pivots, cell, cell_bits):  # type: ignore[no-untyped-def]
    """Returns the state of a descent into one part.

    A state is the keys of the smallest and the largest logit, number and mass of the tokens, number
    and mass of those above.
    """
    keys, size, total, rank, mass = state
    if part == 0:
        low = _key(pivots[1], cell, cell_bits) + 1
        return (low, keys[1]), above[0], above[1], rank, mass
    rank, mass = rank + above[0], mass + above[1]
    if part == 1:
        low, high = _key(pivots[0], cell, cell_bits), _key(pivots[1], cell, cell_bits)
        return (low, high), inside[0], inside[1], rank, mass
    size, total = size - above[0] - inside[0], total - above[1] - inside[1]
    high = _key(pivots[0], cell, cell_bits) - 1
    return (keys[0], high), size, total, rank + inside[0], mass + inside[1]


@compiled
def _share(goal, counts, state):  # type: ignore[no-untyped-def]
    """Returns what the goal inside a state is of its number of tokens or of its mass."""
    _, size, total, rank, mass = state
    return (goal - rank) / size if counts else (goal - mass) / total


@compiled
def _inner(goal, counts, state):  # type: ignore[no-untyped-def]
    """Returns the goal inside a state."""
    return goal - state[3] if counts else goal - state[4]


@compiled
def _land(logits, row, state, goal, counts, memory, mass_memory):  # type: ignore[no-untyped-def]
    """Returns the logit at which the goal is reached, rank and mass above, rounds and visits."""
    buffers, _, cell, cell_bits, distance = memory
    turn = visited = 0
    # The row itself is looked at until a part of it has been written to memory.
    source = -1
    while source < 0 or state[1] > LANES:
        share = _share(goal, counts, state)
        above_first = source >= 0 or share < 0.5
        if source < 0:
            values, count = logits, logits.size
        else:
            values, count = buffers[source], state[1]
        pivots = _pivots(
            values, count, state[1], turn, state[0], share, counts, row, memory, mass_memory
        )
        if source < 0:
            ends = (_number(state[0][0], cell, cell_bits), _number(state[0][1], cell, cell_bits))
            outer, inner = 0, 1
            o, i = _part_row(logits, ends, pivots, above_first, buffers[outer], buffers[inner])
        else:
            outer, inner = (source + 1) % 3, (source + 2) % 3
            o, i, _ = _part(values, count, pivots, buffers[outer], buffers[inner], values)
        turn, visited = turn + 1, visited + count
        equal = pivots[0] == pivots[1]
        outer_mass, inside_mass = _weigh_parts(
            buffers, (outer, o), (inner, i), equal, row, distance, mass_memory
        )
        inside, above = (i, inside_mass), (o, outer_mass)
        if not above_first:
            above = (state[1] - o - i, state[2] - outer_mass - inside_mass)
        part = _part_with_goal(_inner(goal, counts, state), counts, above, inside)
        state = _narrowed(state, part, above, inside, pivots, cell, cell_bits)
        if part == 1:
            source = inner
            if equal:
                return pivots[0], state[3], state[4], turn, visited
        elif above_first == (part == 0):
            source = outer
    _, size, _, rank, mass = state
    inner = _inner(goal, counts, state)
    logit, more, further = _finish(buffers[source], size, row, inner, counts, distance, mass_memory)
    return logit, rank + more, mass + further, turn, visited


class DescentMemory:
    """The working memory of :func:`land`.

    Args:
        vocab_size: Number of tokens V.
    """

    def __init__(self, vocab_size: int) -> None:
        cell = np.empty(1, dtype=np.float32)
        self.arrays = (
            np.empty((3, vocab_size), dtype=np.float32),
            np.empty(SAMPLE, dtype=np.float32),
            cell,
            cell.view(np.int32),
            np.empty(LANES, dtype=np.float32),
        )
        self.mass_memory = MassMemory().arrays
        self.rounds = 0
        """Rounds that the last descent took."""
        self.visited = 0
        """Logits that its rounds looked at, all together."""


def land(
    row: BinnedRow, first: int, last: int, held: Held, goal: Goal, memory: DescentMemory
) -> Landing:
    """Returns where the bins from *first* to *last* reach *goal*.

    Args:
        row: The row.
        first: The first bin.
        last: The last one.
        held: What they hold.
        goal: From 1 to what the bins hold.
        memory: For rows of V tokens.
    """
    logit, rank, mass, memory.rounds, memory.visited = _land(
        _writable(row.logits),
        (row.maximum, row.inverse_temperature, 2.0**row.exponent),
        (_ends(row, first, last, memory), held.tokens, float(held.mass), 0, 0.0),
        float(goal.amount),
        goal.counts,
        memory.arrays,
        memory.mass_memory,
    )
    return Landing(np.float32(logit), int(rank), int(mass))


def _ends(row: BinnedRow, first: int, last: int, memory: DescentMemory) -> tuple[int, int]:
    """Returns the keys of the smallest and of the largest logit of some bins."""
    cells = memory.arrays[2:4]
    scale = tuple(bin_scale(row.inverse_temperature))
    low, high = LOWEST_KEY, _key(row.maximum, *cells)
    if last < BINS - 1:
        low = _lowest_key(last, row.maximum, scale, *cells)
    if first:
        high = _lowest_key(first - 1, row.maximum, scale, *cells) - 1
    return low, high


def _writable(logits: Logits) -> Logits:
    """Returns *logits* as the loops take them: of the type of their own memory."""
    usual = logits.flags.c_contiguous and logits.flags.writeable
    return logits if usual else logits.copy()
