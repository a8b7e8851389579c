# SPDX-License-Identifier: Apache-2.0
"""The token that u selects, told by exact masses in bins, as compiled loops.

The questions and answers are those of :class:`qr_sampler.selection.fast.histogram.Histogram`. A
descent finds where a bin reaches a goal, however many tokens it has.
"""

from __future__ import annotations

import numpy as np

from qr_sampler.selection.fast.bins import BINS
from qr_sampler.selection.masses import MASSLESS
from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.arithmetic.masses import LANES, TABLES, mass_memory
from qr_sampler_accel.host.arithmetic.products import ceil_product
from qr_sampler_accel.host.asked import MIN_P, TOP_K, TOP_N_SIGMA, TOP_P, TRUNCATE_FIRST
from qr_sampler_accel.host.bins.bins import fill_totals, near_maximum, token_at
from qr_sampler_accel.host.bins.descent import SAMPLED_ROUNDS, bin_ends, land
from qr_sampler_accel.host.bins.pivots import State, memory_around, weigh
from qr_sampler_accel.host.from_head import first_reaching

__all__ = ["bin_memory", "choose_from_bins", "scratch_size"]


def scratch_size(vocab_size: int) -> int:
    """Returns how many float64 the working memory of rows of V tokens has."""
    tables, above = TABLES * BINS, 2 * (BINS + 1)
    return max(tables + tables // 2 + above + -(-3 * vocab_size // 2), -(-5 * vocab_size // 2))


@compiled
def bin_memory(size, scratch):  # type: ignore[no-untyped-def]
    """Returns the working memory for rows of *size* tokens: lanes, tables, and of a descent.

    What is large is in *scratch*, which has :func:`scratch_size` numbers: to ask the system for it
    in every step would take time.
    """
    tables = TABLES * BINS
    above = scratch[tables + tables // 2 :].view(np.int64)
    rest = above[2 * (BINS + 1) :].view(np.float32)
    return (
        (
            (np.empty(LANES, dtype=np.float32), np.empty(LANES, dtype=np.int32)),
            mass_memory(),
        ),
        (
            scratch[:tables].reshape((TABLES, BINS)),
            scratch[tables : tables + tables // 2].view(np.int32).reshape((TABLES, BINS)),
            above[: BINS + 1],
            above[BINS + 1 : 2 * (BINS + 1)],
        ),
        memory_around(rest[: 3 * size].reshape((3, size))),
    )


@compiled
def _scale(inverse):  # type: ignore[no-untyped-def]
    """Returns what ``bin_scale`` returns."""
    per_nat = (BINS - 0.5) / -MASSLESS
    return np.float32(MASSLESS / inverse), np.float32(-per_nat * inverse)


@compiled
def _fill(row, inverse, unit, lanes, tables):  # type: ignore[no-untyped-def]
    """Sorts a row into bins and writes what lies above each bin and, last, in all of them."""
    totals, counts, mass_above, rank_above = tables
    logits, maximum = row
    scale = _scale(inverse)
    fill_totals(logits, maximum, inverse, unit, scale, *lanes[0], lanes[1], totals, counts)
    mass_above[0] = rank_above[0] = 0
    for index in range(totals.shape[1]):
        mass_above[index + 1] = mass_above[index] + np.int64(totals[0, index])
        rank_above[index + 1] = rank_above[index] + counts[0, index]


@compiled
def _land(row, inverse, unit, index, goal, counts, tables, memory):  # type: ignore[no-untyped-def]
    """Returns where a bin reaches a goal; see :func:`qr_sampler_accel.host.bins.descent.land`.

    That is the logit, number and mass of the tokens of the bin above it, and the mass of each that
    has it.
    """
    (logits, maximum), (totals, _, mass_above, rank_above) = row, tables
    numbers, scale = (maximum, inverse, unit), _scale(inverse)
    low, high = bin_ends(index, index, totals.shape[1], maximum, scale, memory)
    held = rank_above[index + 1] - rank_above[index]
    mass = mass_above[index + 1] - mass_above[index]
    state = State(low, high, held, np.float64(mass), 0, 0.0)
    found = land(logits, numbers, state, np.float64(goal), counts, SAMPLED_ROUNDS, memory)
    memory.sample[0] = found[0]
    each = weigh(memory.sample, 1, numbers, memory)
    return found[0], found[1], np.int64(found[2]), np.int64(each)


@compiled
def _after_rank(row, inverse, unit, stop, tables, memory):  # type: ignore[no-untyped-def]
    """Returns the mass of the first *stop* tokens."""
    mass_above, rank_above = tables[2], tables[3]
    index = first_reaching(rank_above[1:], mass_above.size - 1, stop)
    if rank_above[index + 1] == stop or index == mass_above.size - 2:
        # Tokens in the last bin have no mass.
        return mass_above[index + 1]
    place = stop - rank_above[index]
    _, above, mass, each = _land(row, inverse, unit, index, place, True, tables, memory)
    return mass_above[index] + mass + (place - above) * each


@compiled
def _filtered(filters, farthest, row, inverse, unit, memory):  # type: ignore[no-untyped-def]
    """Returns number and mass of the tokens that the filters before top-p leave."""
    lanes, tables, descent = memory
    stop, total = row[0].size, tables[2][-1]
    if filters[TOP_N_SIGMA] or filters[MIN_P]:
        mass = np.float64(ceil_product(filters[MIN_P], np.int64(unit)))
        distance = farthest if filters[TOP_N_SIGMA] else np.inf
        numbers = (row[1], inverse, unit)
        stop, total = near_maximum(row[0], numbers, mass, distance, lanes[0][0], lanes[1])
        total = np.int64(total)
    if 0 < filters[TOP_K] < stop:
        stop = np.int64(filters[TOP_K])
        total = _after_rank(row, inverse, unit, stop, tables, descent)
    return stop, total


@compiled
def _reaching(row, inverse, unit, goal, tables, memory):  # type: ignore[no-untyped-def]
    """Returns the token that brings the running total to *goal*, its rank and mass, and the total.

    The total includes the token.
    """
    mass_above, rank_above = tables[2], tables[3]
    index = first_reaching(mass_above[1:], mass_above.size - 1, goal)
    rest = goal - mass_above[index]
    logit, above, mass, each = _land(row, inverse, unit, index, rest, False, tables, memory)
    ties = (rest - mass - 1) // each
    token = token_at(row[0], logit, ties)
    total = mass_above[index] + mass + (ties + 1) * each
    return token, rank_above[index] + above + ties, each, total


@compiled
def choose_from_bins(question, row, unit, memory):  # type: ignore[no-untyped-def]
    """Returns token, rank, probability and number of candidates.

    Args:
        question: The filters of the row, of shape ``(FILTER_COLUMNS,)``, the distance that
            top-n-sigma allows, 1 / T, and u.
        row: Logits of shape ``(V,)``, and their maximum.
        unit: The mass of the most probable token.
        memory: What :func:`bin_memory` has returned.
    """
    filters, farthest, inverse, u = question
    lanes, tables, descent = memory
    before = filters[TRUNCATE_FIRST] != 0.0 and inverse != 1.0
    scale = 1.0 if before else inverse
    _fill(row, scale, unit, lanes, tables)
    stop, total = _filtered(filters, farthest, row, scale, unit, memory)
    if filters[TOP_P] < 1.0:
        goal = ceil_product(filters[TOP_P], total)
        _, rank, _, total = _reaching(row, scale, unit, goal, tables, descent)
        stop = rank + 1
    if before:
        _fill(row, inverse, unit, lanes, tables)
        total = _after_rank(row, inverse, unit, stop, tables, descent)
    goal = ceil_product(u, total)
    token, rank, mass, _ = _reaching(row, inverse, unit, goal, tables, descent)
    return token, rank, mass / total, stop
