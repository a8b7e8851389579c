# SPDX-License-Identifier: Apache-2.0
"""The token that u selects, as far as the leading tokens of a row tell, as compiled loops.

The questions and answers are those of :class:`qr_sampler.selection.fast.ranked_tokens.RankedTokens`
and :mod:`qr_sampler.selection.filters`. What cannot be told is UNKNOWN.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from qr_sampler.selection.fast.passes import EXP_ERROR, PRODUCT_ERROR, SUM_ERROR
from qr_sampler.selection.masses import MASSLESS
from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.arithmetic.masses import LANES, fill_masses
from qr_sampler_accel.host.arithmetic.products import ceil_product
from qr_sampler_accel.host.asked import MIN_P, TOP_K, TOP_N_SIGMA, TOP_P, TRUNCATE_FIRST

__all__ = [
    "UNKNOWN",
    "choose_from_head",
    "fill_running",
    "first_reaching",
    "lead_with_mass",
    "lead_within",
]

UNKNOWN: Final = -1
"""The token, or the number of tokens, where it cannot be told."""

WEIGHT_ERROR: Final = 1.01 * (EXP_ERROR + SUM_ERROR + PRODUCT_ERROR * -MASSLESS)
"""Relative, of a float32 weight; see :func:`qr_sampler.selection.fast.passes.weight_bounds`."""


@compiled
def first_reaching(cumulative, count, goal):  # type: ignore[no-untyped-def]
    """Returns the index of the first of *count* running totals that reaches *goal*, or *count*."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if cumulative[middle] < goal:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def lead_within(distance, count, farthest):  # type: ignore[no-untyped-def]
    """Returns how many of *count* ranked tokens are at most *farthest* below the maximum."""
    for i in range(count):
        if -np.float64(distance[i]) > farthest:
            return i
    return count


@compiled
def lead_with_mass(masses, count, mass):  # type: ignore[no-untyped-def]
    """Returns how many of *count* ranked tokens have at least the given mass."""
    for i in range(count):
        if masses[i] < mass:
            return i
    return count


@compiled
def fill_running(distance, count, inverse, unit, masses, cumulative, memory):  # type: ignore[no-untyped-def]
    """Writes the masses of the leading tokens and their running total."""
    running = 0.0
    for start in range(0, count, LANES):
        size = min(LANES, count - start)
        fill_masses(distance[start:], size, inverse, unit, *memory)
        piece = memory[2]
        for j in range(size):
            masses[start + j] = piece[j]
            running += piece[j]
            cumulative[start + j] = running


@compiled
def _filtered(filters, farthest, distance, masses, count, size, unit):  # type: ignore[no-untyped-def]
    """Returns how many tokens the filters before top-p leave; *size* if there are none."""
    fewest, active = size + 1, 0
    if filters[TOP_N_SIGMA]:
        active += 1
        lead = lead_within(distance, count, farthest)
        if lead < count or lead == size:
            fewest = min(fewest, lead)
    if filters[TOP_K]:
        active += 1
        if filters[TOP_K] <= count:
            fewest = min(fewest, np.int64(filters[TOP_K]))
    if filters[MIN_P]:
        active += 1
        lead = lead_with_mass(masses, count, ceil_product(filters[MIN_P], np.int64(unit)))
        if lead < count or lead == size:
            fewest = min(fewest, lead)
    if not active:
        return size
    # A filter that cuts out of sight cuts later than one that cuts in sight.
    return fewest if fewest <= size else UNKNOWN


@compiled
def _bounds(rank, count, cumulative, size, unit, weight):  # type: ignore[no-untyped-def]
    """Returns bounds of the mass of the first *rank* tokens: all, or some of the leading ones.

    See :func:`qr_sampler.selection.fast.passes.mass_bounds`.
    """
    if rank <= count:
        mass = np.int64(cumulative[rank - 1])
        return mass, mass
    error, slack = WEIGHT_ERROR * weight, 0.5 * size
    lowest = math.floor((weight - error) * unit - slack)
    return max(np.int64(lowest), np.int64(0)), np.int64(math.ceil((weight + error) * unit + slack))


@compiled
def _reaching(fraction, cumulative, count, lowest, highest):  # type: ignore[no-untyped-def]
    """Returns the rank of the token that reaches *fraction* of a mass within bounds."""
    rank = first_reaching(cumulative, count, ceil_product(fraction, lowest))
    if rank == count:
        return UNKNOWN
    if lowest != highest and cumulative[rank] < ceil_product(fraction, highest):
        return UNKNOWN
    return rank


@compiled
def choose_from_head(question, head, size, unit, weights, memory):  # type: ignore[no-untyped-def]
    """Returns token, rank, probability and number of candidates; UNKNOWN if it cannot be told.

    Args:
        question: The filters of the row, of shape ``(FILTER_COLUMNS,)``, the distance that
            top-n-sigma allows, 1 / T, and u.
        head: The leading tokens and their distances. Shapes ``(N,)``.
        size: Number of tokens V.
        unit: The mass of the most probable token.
        weights: Sum of exp(d), and of exp(d / T), over the row.
        memory: Masses and running totals, each of N or more, and that of ``fill_masses``.
    """
    (filters, farthest, inverse, u), (ids, distance) = question, head
    masses, cumulative, lanes = memory
    unknown = (UNKNOWN, 0, 0.0, 0)
    count = ids.size
    before = filters[TRUNCATE_FIRST] != 0.0 and inverse != 1.0
    scale, weight = (1.0, weights[0]) if before else (inverse, weights[1])
    fill_running(distance, count, scale, unit, masses, cumulative, lanes)
    stop = _filtered(filters, farthest, distance, masses, count, size, unit)
    if stop == UNKNOWN:
        return unknown
    if filters[TOP_P] < 1.0:
        lowest, highest = _bounds(stop, count, cumulative, size, unit, weight)
        stop = 1 + _reaching(filters[TOP_P], cumulative, count, lowest, highest)
        if not stop:
            return unknown
    if before:
        fill_running(distance, count, inverse, unit, masses, cumulative, lanes)
    lowest, highest = _bounds(stop, count, cumulative, size, unit, weights[1])
    rank = _reaching(u, cumulative, count, lowest, highest)
    if rank == UNKNOWN:
        return unknown
    return ids[rank], rank, masses[rank] / (0.5 * (lowest + highest)), stop
