# SPDX-License-Identifier: Apache-2.0
"""The token that u selects, told by exact masses in bins, as compiled loops.

The questions and answers are those of :class:`qr_sampler.selection.fast.histogram.Histogram`. What
cannot be told here are bins with more tokens than are sorted: then the answer is UNKNOWN.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from qr_sampler.selection.fast.bins import BINS
from qr_sampler.selection.fast.sections import FEW
from qr_sampler.selection.masses import MASSLESS
from qr_sampler_accel.host.asked import MIN_P, TOP_K, TOP_N_SIGMA, TOP_P, TRUNCATE_FIRST
from qr_sampler_accel.host.bins import fill_totals, tokens_within
from qr_sampler_accel.host.from_head import (
    UNKNOWN,
    fill_running,
    first_reaching,
    lead_with_mass,
    lead_within,
)
from qr_sampler_accel.host.leading import rank
from qr_sampler_accel.host.masses import LANES, TABLES, MassMemory, compiled
from qr_sampler_accel.host.products import ceil_product

__all__ = ["BinMemory", "choose_from_bins"]

FEWER_BINS: Final = 512
"""For rows of up to FEW tokens: clearing more bins would take longer than filling them."""


NEAR: Final = 1e-4
"""Margin in nats, by far larger than the rounding of an exponent and smaller than a bin."""


class BinMemory:
    """The working memory of :func:`choose_from_bins`.

    Args:
        vocab_size: Number of tokens V.
    """

    def __init__(self, vocab_size: int) -> None:
        bins = FEWER_BINS if vocab_size <= FEW else BINS
        self.arrays = (
            (
                (np.empty(LANES, dtype=np.float32), np.empty(LANES, dtype=np.int32)),
                MassMemory().arrays,
            ),
            (
                np.empty((TABLES, bins), dtype=np.float64),
                np.empty((TABLES, bins), dtype=np.int32),
                np.empty(bins + 1, dtype=np.int64),
                np.empty(bins + 1, dtype=np.int64),
            ),
            (
                np.empty(FEW, dtype=np.intp),
                np.empty(FEW, dtype=np.float32),
                np.empty(FEW, dtype=np.float64),
                np.empty(FEW, dtype=np.float64),
            ),
        )


@compiled
def _scale(inverse, bins):  # type: ignore[no-untyped-def]
    """Returns what ``bin_scale`` returns, for any number of bins."""
    per_nat = (bins - 0.5) / -MASSLESS
    return np.float32(MASSLESS / inverse), np.float32(-per_nat * inverse)


@compiled
def _fill(row, inverse, unit, lanes, tables):  # type: ignore[no-untyped-def]
    """Sorts a row into bins and writes what lies above each bin and, last, in all of them."""
    totals, counts, mass_above, rank_above = tables
    logits, maximum = row
    scale = _scale(inverse, totals.shape[1])
    fill_totals(logits, maximum, inverse, unit, scale, *lanes[0], lanes[1], totals, counts)
    mass_above[0] = rank_above[0] = 0
    for index in range(totals.shape[1]):
        mass_above[index + 1] = mass_above[index] + np.int64(totals[0, index])
        rank_above[index + 1] = rank_above[index] + counts[0, index]


@compiled
def _sort(row, inverse, unit, first, last, lanes, tables, section):  # type: ignore[no-untyped-def]
    """Ranks the tokens of the bins from *first* to *last*; returns how many, or UNKNOWN."""
    rank_above, (ids, distance, masses, cumulative) = tables[3], section
    count = rank_above[last + 1] - rank_above[first]
    if count > ids.size:
        return UNKNOWN
    logits, maximum = row
    scale = _scale(inverse, tables[0].shape[1])
    tokens_within(logits, maximum, scale, *lanes[0], first, last, ids)
    rank(logits, ids, count)
    for i in range(count):
        distance[i] = logits[ids[i]] - maximum
    fill_running(distance, count, inverse, unit, masses, cumulative, lanes[1])
    return count


@compiled
def _after_rank(row, inverse, unit, stop, lanes, tables, section):  # type: ignore[no-untyped-def]
    """Returns the mass of the first *stop* tokens, or UNKNOWN."""
    mass_above, rank_above = tables[2], tables[3]
    index = first_reaching(rank_above[1:], mass_above.size - 1, stop)
    if rank_above[index + 1] == stop or index == mass_above.size - 2:
        # Tokens in the last bin have no mass.
        return mass_above[index + 1]
    if _sort(row, inverse, unit, index, index, lanes, tables, section) == UNKNOWN:
        return UNKNOWN
    return mass_above[index] + np.int64(section[3][stop - rank_above[index] - 1])


@compiled
def _lead(row, inverse, unit, exponent, bound, of_mass, lanes, tables, section):  # type: ignore[no-untyped-def]
    """Returns how many tokens have a mass of at least *bound*, or are at most that far below.

    Args:
        row: Logits and their maximum.
        inverse: 1 / T.
        unit: The mass of the most probable token.
        exponent: d / T about where the last of them is.
        bound: Smallest mass, or largest distance.
        of_mass: Whether it is a mass.
        lanes: Working memory.
        tables: What :func:`_fill` has filled.
        section: Working memory.
    """
    bins, rank_above = tables[0].shape[1], tables[3]
    per_nat = (bins - 0.5) / -MASSLESS
    exponent = max(exponent, MASSLESS)
    first = min(np.int64(max(-exponent - NEAR, 0.0) * per_nat), bins - 1)
    last = min(np.int64(max(-exponent + NEAR, 0.0) * per_nat), bins - 1)
    count = _sort(row, inverse, unit, first, last, lanes, tables, section)
    if count == UNKNOWN:
        return UNKNOWN
    if of_mass:
        return rank_above[first] + lead_with_mass(section[2], count, bound)
    return rank_above[first] + lead_within(section[1], count, bound)


@compiled
def _filtered(asked, farthest, row, inverse, unit, lanes, tables, section):  # type: ignore[no-untyped-def]
    """Returns how many tokens the filters before top-p leave, or UNKNOWN."""
    fewest = row[0].size
    if asked[TOP_N_SIGMA]:
        exponent = -farthest * inverse
        lead = _lead(row, inverse, unit, exponent, farthest, False, lanes, tables, section)
        if lead == UNKNOWN:
            return UNKNOWN
        fewest = min(fewest, lead)
    if asked[TOP_K]:
        fewest = min(fewest, np.int64(asked[TOP_K]))
    if asked[MIN_P]:
        mass = np.float64(ceil_product(asked[MIN_P], np.int64(unit)))
        exponent = math.log((mass - 0.5) / unit)
        lead = _lead(row, inverse, unit, exponent, mass, True, lanes, tables, section)
        if lead == UNKNOWN:
            return UNKNOWN
        fewest = min(fewest, lead)
    return fewest


@compiled
def _reaching(row, inverse, unit, goal, lanes, tables, section):  # type: ignore[no-untyped-def]
    """Returns the first bin that reaches a mass of *goal*, and which of its tokens does.

    The token is UNKNOWN if they are too many.
    """
    mass_above = tables[2]
    index = first_reaching(mass_above[1:], mass_above.size - 1, goal)
    count = _sort(row, inverse, unit, index, index, lanes, tables, section)
    if count == UNKNOWN:
        return index, UNKNOWN
    return index, first_reaching(section[3], count, goal - mass_above[index])


@compiled
def choose_from_bins(question, row, unit, memory):  # type: ignore[no-untyped-def]
    """Returns token, rank, probability and number of candidates; UNKNOWN if it cannot be told.

    Args:
        question: The filters of the row, of shape ``(COLUMNS,)``, the distance that top-n-sigma
            allows, 1 / T, and u.
        row: Logits of shape ``(V,)``, and their maximum.
        unit: The mass of the most probable token.
        memory: That of a :class:`BinMemory`.
    """
    asked, farthest, inverse, u = question
    lanes, tables, section = memory
    rank_above = tables[3]
    unknown = (UNKNOWN, 0, 0.0, 0)
    before = asked[TRUNCATE_FIRST] != 0.0 and inverse != 1.0
    scale = 1.0 if before else inverse
    _fill(row, scale, unit, lanes, tables)
    stop = _filtered(asked, farthest, row, scale, unit, lanes, tables, section)
    if stop == UNKNOWN:
        return unknown
    if asked[TOP_P] < 1.0:
        total = _after_rank(row, scale, unit, stop, lanes, tables, section)
        if total == UNKNOWN:
            return unknown
        goal = ceil_product(asked[TOP_P], total)
        index, place = _reaching(row, scale, unit, goal, lanes, tables, section)
        if place == UNKNOWN:
            return unknown
        stop = rank_above[index] + place + 1
    if before:
        _fill(row, inverse, unit, lanes, tables)
    total = _after_rank(row, inverse, unit, stop, lanes, tables, section)
    if total == UNKNOWN:
        return unknown
    index, place = _reaching(row, inverse, unit, ceil_product(u, total), lanes, tables, section)
    if place == UNKNOWN:
        return unknown
    token, mass = section[0][place], section[2][place]
    return token, rank_above[index] + place, mass / total, stop
