# SPDX-License-Identifier: Apache-2.0
"""Rows of few tokens: their moments, and the token that u selects, told by all of their masses.

The questions and answers are those of :class:`qr_sampler.selection.fast.histogram.Histogram`. Where
a running total reaches a goal is found by halving the range of logits, whose every half takes one
pass over the row: as many for every row, and so little code that it is soon back in the processor's
cache when a step begins.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler.arrays import Distances, FloatArray, Logits
from qr_sampler_accel.host.arithmetic.compiler import compiled, summing
from qr_sampler_accel.host.arithmetic.masses import (
    LANES,
    MassMemory,
    fill_exponentials,
    fill_masses,
    mass_memory,
)
from qr_sampler_accel.host.arithmetic.moments import is_settled
from qr_sampler_accel.host.arithmetic.products import ceil_product
from qr_sampler_accel.host.asked import MIN_P, TOP_K, TOP_N_SIGMA, TOP_P, TRUNCATE_FIRST
from qr_sampler_accel.host.bins.bins import token_at
from qr_sampler_accel.host.bins.descent import LOWEST_KEY
from qr_sampler_accel.host.bins.pivots import key_of, number_of

__all__ = ["FewMemory", "choose_from_few", "few_memory", "few_moments"]

FARTHEST: Final = np.float32(-80.0)
"""Tokens further below the maximum add less than 1e-30 to any sum."""
ERROR: Final = 1e-11
"""Relative, of sums of so few float64, with room to spare."""


class FewMemory(NamedTuple):
    """The working memory for rows of few tokens; little of it, so that it stays in the cache."""

    masses: FloatArray
    """Those of all tokens. Shape ``(V,)``."""
    distance: Distances
    """Shape ``(LANES,)``."""
    lanes: MassMemory
    """What ``fill_masses`` works with."""
    cell: Logits
    """Shape ``(1,)``."""
    cell_bits: NDArray[np.int32]
    """The same, seen as an integer."""


@compiled
def few_memory(masses):  # type: ignore[no-untyped-def]
    """Returns the working memory for rows of as many tokens as there is room for *masses*."""
    cell = np.empty(1, dtype=np.float32)
    distance = np.empty(LANES, dtype=np.float32)
    return FewMemory(masses, distance, mass_memory(), cell, cell.view(np.int32))


@summing
def _add(distance, count, e, sums):  # type: ignore[no-untyped-def]
    """Adds e, e d and e d**2 of some tokens to *sums*."""
    weight = first = second = 0.0
    for j in range(count):
        d = np.float64(distance[j])
        product = e[j] * d
        weight += e[j]
        first += product
        second += product * d
    return sums[0] + weight, sums[1] + first, sums[2] + second


@compiled
def few_moments(row, maximum, count, memory):  # type: ignore[no-untyped-def]
    """Returns entropy, varentropy, weight, and whether the first *count* of them are settled.

    Entropy is ln W - F / W and varentropy S / W - (F / W)**2, with W, F and S the sums of e, e d
    and e d**2 over the distances d from the maximum and e = exp(d).
    """
    distance, exponentials = memory.distance, memory.lanes
    sums = (0.0, 0.0, 0.0)
    for start in range(0, row.size, LANES):
        piece = row[start : start + LANES]
        for j in range(piece.size):
            distance[j] = max(piece[j] - maximum, FARTHEST)
        fill_exponentials(distance, piece.size, 1.0, *exponentials)
        sums = _add(distance, piece.size, exponentials[2], sums)
    weight = sums[0]
    mean, square = -sums[1] / weight, sums[2] / weight
    entropy, varentropy = max(math.log(weight) + mean, 0.0), max(square - mean * mean, 0.0)
    settled = not count or is_settled(entropy, ERROR * (1.0 + mean))
    if count > 1:
        settled = settled and is_settled(varentropy, ERROR * (1.0 + square))
    return entropy, varentropy, weight, settled


@compiled
def _weigh(row, inverse, unit, memory):  # type: ignore[no-untyped-def]
    """Writes the mass of every token."""
    logits, maximum = row
    masses, distance, lanes = memory.masses, memory.distance, memory.lanes
    for start in range(0, logits.size, LANES):
        piece = logits[start : start + LANES]
        for j in range(piece.size):
            distance[j] = piece[j] - maximum
        fill_masses(distance, piece.size, inverse, unit, *lanes)
        for j in range(piece.size):
            masses[start + j] = lanes[2][j]


@summing
def _mass_above(row, masses, logit):  # type: ignore[no-untyped-def]
    """Returns the mass of the tokens with a larger logit."""
    total = 0.0
    for j in range(row.size):
        total += masses[j] if row[j] > logit else 0.0
    return total


@compiled
def _count_above(row, logit):  # type: ignore[no-untyped-def]
    """Returns the number of tokens with a larger logit."""
    count = 0
    for j in range(row.size):
        count += row[j] > logit
    return count


@compiled
def _reach(row, goal, counts, memory):  # type: ignore[no-untyped-def]
    """Returns where the running total over the tokens in rank order reaches *goal*.

    That is the logit of the token, number and mass of those above it, and the mass of each that has
    it.

    Args:
        row: Logits and their maximum.
        goal: From 1 to all there is.
        counts: Whether tokens are counted; otherwise their masses are added up.
        memory: With the masses.
    """
    (logits, maximum), masses = row, memory.masses
    low, high = np.int64(LOWEST_KEY), key_of(maximum, memory)
    while low < high:
        middle = (low + high) >> 1
        logit = number_of(middle, memory)
        if counts:
            above = np.float64(_count_above(logits, logit))
        else:
            above = _mass_above(logits, masses, logit)
        if above < goal:
            high = middle
        else:
            low = middle + 1
    logit, each = number_of(low, memory), 0.0
    for j in range(logits.size):
        if logits[j] == logit:
            each = masses[j]
            break
    above = np.int64(_mass_above(logits, masses, logit))
    return logit, _count_above(logits, logit), above, np.int64(each)


@compiled
def _after_rank(row, stop, memory):  # type: ignore[no-untyped-def]
    """Returns the mass of the first *stop* tokens."""
    _, rank, mass, each = _reach(row, np.float64(stop), True, memory)
    return mass + (stop - rank) * each


@compiled
def _reaching(row, goal, memory):  # type: ignore[no-untyped-def]
    """Returns the token that brings the running total to *goal*, its rank and mass, and the total.

    The total includes the token.
    """
    logit, rank, mass, each = _reach(row, np.float64(goal), False, memory)
    ties = (goal - mass - 1) // each
    return token_at(row[0], logit, ties), rank + ties, each, mass + (ties + 1) * each


@summing
def _near_maximum(row, masses, least_mass, most_distance):  # type: ignore[no-untyped-def]
    """Returns number and mass of the tokens that are near enough and have enough of a mass."""
    logits, maximum = row
    count, total = 0, 0.0
    for j in range(logits.size):
        kept = (np.float64(maximum - logits[j]) <= most_distance) & (masses[j] >= least_mass)
        count += kept
        total += masses[j] if kept else 0.0
    return count, np.int64(total)


@compiled
def _filtered(filters, farthest, row, unit, memory):  # type: ignore[no-untyped-def]
    """Returns number and mass of the tokens that the filters before top-p leave."""
    mass = np.float64(ceil_product(filters[MIN_P], np.int64(unit)))
    most = farthest if filters[TOP_N_SIGMA] else np.inf
    stop, total = _near_maximum(row, memory.masses, mass, most)
    if 0 < filters[TOP_K] < stop:
        stop = np.int64(filters[TOP_K])
        total = _after_rank(row, stop, memory)
    return stop, total


@compiled
def choose_from_few(question, row, unit, memory):  # type: ignore[no-untyped-def]
    """Returns token, rank, probability and number of candidates.

    Args:
        question: The filters of the row, of shape ``(FILTER_COLUMNS,)``, the distance that
            top-n-sigma allows, 1 / T, and u.
        row: Logits of shape ``(V,)``, and their maximum.
        unit: The mass of the most probable token.
        memory: What :func:`few_memory` has returned.
    """
    filters, farthest, inverse, u = question
    before = filters[TRUNCATE_FIRST] != 0.0 and inverse != 1.0
    scale = 1.0 if before else inverse
    _weigh(row, scale, unit, memory)
    stop, total = _filtered(filters, farthest, row, unit, memory)
    if filters[TOP_P] < 1.0:
        _, rank, _, total = _reaching(row, ceil_product(filters[TOP_P], total), memory)
        stop = rank + 1
    if before:
        _weigh(row, inverse, unit, memory)
        total = _after_rank(row, stop, memory)
    token, rank, mass, _ = _reaching(row, ceil_product(u, total), memory)
    return token, rank, mass / total, stop
