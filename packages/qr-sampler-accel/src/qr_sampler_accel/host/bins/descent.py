# SPDX-License-Identifier: Apache-2.0
"""Where a running total over crowded bins reaches a goal, as compiled loops.

Two pivots from a random sample of the logits enclose the goal narrowly, so that one round usually
leaves a fifth of the tokens, and a few rounds a handful that are sorted. If the goal is between
pivots that are equal, the logit is found. The sample is drawn by a generator that starts from the
goal, so that no regularity of a row misleads it. A row made for the goal of one filter may, for
``SAMPLED_ROUNDS`` rounds; then pivots halve the range of float32 numbers instead, until a single
one is left. That makes ``MOST_ROUNDS`` rounds at most, each over what the one before has left.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler.selection.fast.bins import BINS, BinnedRow, bin_scale
from qr_sampler.selection.fast.descent import Goal, Held, Landing
from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.arithmetic.masses import LANES
from qr_sampler_accel.host.bins.pivots import (
    WORD,
    State,
    descent_memory,
    key_of,
    number_of,
    pivots,
    rank_few,
    share_of,
    weigh,
)

__all__ = ["LOWEST_KEY", "MOST_ROUNDS", "SAMPLED_ROUNDS", "Descent", "bin_ends", "land"]

SAMPLED_ROUNDS: Final = 4
"""Rounds with pivots from samples; later ones halve the range."""

MOST_ROUNDS: Final = SAMPLED_ROUNDS + 33 + 6
"""A range of float32 numbers is halved 32 times at most before one of them is left. Six rounds are
enough to gather an eighth of the tokens again and again, for up to 2**18 of them."""

LOWEST_KEY: Final = -0x7F800000
"""The key of -inf."""


@compiled
def _lowest_key(last, maximum, scale, memory):  # type: ignore[no-untyped-def]
    """Returns the key of the smallest logit whose bin is *last* or one before it."""
    low, high = np.int64(LOWEST_KEY), key_of(maximum, memory)
    while low < high:
        middle = (low + high) >> 1
        d = max(number_of(middle, memory) - maximum, scale[0])
        if np.int32(d * scale[1]) <= last:
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def bin_ends(first, last, bins, maximum, scale, memory):  # type: ignore[no-untyped-def]
    """Returns the keys of the smallest and of the largest logit of some of the *bins*."""
    low, high = np.int64(LOWEST_KEY), key_of(maximum, memory)
    if last < bins - 1:
        low = _lowest_key(last, maximum, scale, memory)
    if first:
        high = _lowest_key(first - 1, maximum, scale, memory) - 1
    return low, high


@compiled
def _part(values, count, outer, inner, into_outer, into_inner, marks):  # type: ignore[no-untyped-def]
    """Copies the logits in two intervals, which are given by both ends; returns their numbers."""
    o = i = 0
    for start in range(0, count, LANES):
        piece = values[start : min(start + LANES, count)]
        for j in range(piece.size):
            marks[0, j] = (piece[j] >= outer[0]) & (piece[j] <= outer[1])
            marks[1, j] = (piece[j] >= inner[0]) & (piece[j] <= inner[1])
        for j in range(piece.size):
            into_outer[o] = piece[j]
            o += marks[0, j]
            into_inner[i] = piece[j]
            i += marks[1, j]
    return o, i


@compiled
def _outer_ends(state, inner, above_first, memory):  # type: ignore[no-untyped-def]
    """Returns the smallest and the largest number above both pivots, or below them."""
    if above_first:
        return number_of(key_of(inner[1], memory) + 1, memory), number_of(state.high, memory)
    return number_of(state.low, memory), number_of(key_of(inner[0], memory) - 1, memory)


@compiled
def _weigh_parts(outer, inside, alike, row, memory):  # type: ignore[no-untyped-def]
    """Returns the masses of two parts, each given as its buffer and its number of tokens.

    Those inside may be all *alike*. In one loop, which is compiled once.
    """
    masses = (0.0, 0.0)
    for turn in range(2):
        place, count = inside if turn else outer
        if turn and alike:
            mass = weigh(memory.buffers[place], min(count, 1), row, memory) * count
        else:
            mass = weigh(memory.buffers[place], count, row, memory)
        masses = (masses[1], mass)
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
def _narrowed(state, part, above, inside, ends, memory):  # type: ignore[no-untyped-def]
    """Returns the state of a descent into one part."""
    low, high, size, total, rank, mass = state
    if part == 0:
        return State(key_of(ends[1], memory) + 1, high, above[0], above[1], rank, mass)
    rank, mass = rank + above[0], mass + above[1]
    if part == 1:
        low, high = key_of(ends[0], memory), key_of(ends[1], memory)
        return State(low, high, inside[0], inside[1], rank, mass)
    size, total = size - above[0] - inside[0], total - above[1] - inside[1]
    high = key_of(ends[0], memory) - 1
    return State(low, high, size, total, rank + inside[0], mass + inside[1])


@compiled
def _inner(goal, counts, state):  # type: ignore[no-untyped-def]
    """Returns the goal inside a state."""
    return goal - state.rank if counts else goal - state.mass


@compiled
def _finish(values, count, row, goal, counts, memory):  # type: ignore[no-untyped-def]
    """Returns where up to LANES logits reach the goal, and rank and mass above."""
    rank_few(values, count, row, memory)
    ranked = memory.sample
    total, rank, mass = 0.0, 0, 0.0
    for i in range(count):
        if i and ranked[i] < ranked[i - 1]:
            rank, mass = i, total
        total += memory.masses[2][i]
        if (i + 1.0 if counts else total) >= goal:
            break
    return ranked[rank], rank, mass


@compiled
def land(logits, row, state, goal, counts, sampled_rounds, memory):  # type: ignore[no-untyped-def]
    """Returns the logit at which a running total reaches a goal.

    Args:
        logits: Shape ``(V,)``, float32, of the type of the memory: consecutive and writable.
        row: The largest of them, 1 / T, and the mass of the most probable token.
        state: Which tokens are counted, and what they have.
        goal: From 1 to that.
        counts: Whether tokens are counted; otherwise their masses are added up.
        sampled_rounds: How many rounds have pivots from samples.
        memory: Working memory.

    Returns:
        The logit, number and mass of the tokens that have a larger one, how many rounds it took,
        and how many logits these looked at.
    """
    buffers = memory.buffers
    turn = visited = 0
    seed = np.int64(goal) & WORD
    # The row itself is looked at until a part of it has been written to memory.
    source, count = -1, logits.size
    while source < 0 or count > LANES:
        values = logits if source < 0 else buffers[source]
        inner_goal = _inner(goal, counts, state)
        sampled = turn < sampled_rounds
        low, high, seed = pivots(
            values, count, state, inner_goal, counts, sampled, seed, row, memory
        )
        turn, visited = turn + 1, visited + count
        above_first = share_of(inner_goal, counts, state) < 0.5
        outer, inner = (source + 1) % 3, (source + 2) % 3
        ends = _outer_ends(state, (low, high), above_first, memory)
        o, i = _part(values, count, ends, (low, high), buffers[outer], buffers[inner], memory.marks)
        masses = _weigh_parts((outer, o), (inner, i), low == high, row, memory)
        above, inside = (o, masses[0]), (i, masses[1])
        if not above_first:
            above = (state.size - o - i, state.total - masses[0] - masses[1])
        part = _part_with_goal(inner_goal, counts, above, inside)
        state = _narrowed(state, part, above, inside, (low, high), memory)
        if part == 1:
            if low == high:
                return low, state.rank, state.mass, turn, visited
            source, count = inner, i
        elif above_first == (part == 0):
            source, count = outer, o
    inner_goal = _inner(goal, counts, state)
    logit, more, further = _finish(buffers[source], count, row, inner_goal, counts, memory)
    return logit, state.rank + more, state.mass + further, turn, visited


class Descent:
    """Descents in rows of V tokens, one at a time.

    Args:
        vocab_size: Number of tokens V.
        sampled_rounds: How many rounds have pivots from samples.
    """

    def __init__(self, vocab_size: int, sampled_rounds: int = SAMPLED_ROUNDS) -> None:
        self.memory = descent_memory(vocab_size)
        self._sampled_rounds = sampled_rounds
        self.rounds = 0
        """Rounds that the last descent took."""
        self.visited = 0
        """Logits that its rounds looked at, all together."""

    def land(self, row: BinnedRow, first: int, last: int, held: Held, goal: Goal) -> Landing:
        """Returns where the bins from *first* to *last* reach *goal*.

        Args:
            row: The row.
            first: The first bin.
            last: The last one.
            held: What they hold.
            goal: From 1 to what the bins hold.
        """
        scale = tuple(bin_scale(row.inverse_temperature))
        low, high = bin_ends(first, last, BINS, row.maximum, scale, self.memory)
        logit, rank, mass, self.rounds, self.visited = land(
            row.logits,
            (row.maximum, row.inverse_temperature, 2.0**row.exponent),
            State(low, high, held.tokens, float(held.mass), 0, 0.0),
            float(goal.amount),
            goal.counts,
            self._sampled_rounds,
            self.memory,
        )
        return Landing(np.float32(logit), int(rank), int(mass))
