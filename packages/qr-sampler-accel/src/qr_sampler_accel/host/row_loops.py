# SPDX-License-Identifier: Apache-2.0
"""Loops over a batch of rows: what is measured of them, and the tokens that u selects."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from qr_sampler.selection.fast.head import COLUMN_HEIGHT, GROUPS
from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.arithmetic.masses import mass_memory
from qr_sampler_accel.host.arithmetic.moments import float32_moments, moment_memory, row_weight
from qr_sampler_accel.host.asked import NEEDS_TOTAL, TOP_N_SIGMA, TYPICAL_P
from qr_sampler_accel.host.few import choose_from_few, few_memory, few_moments
from qr_sampler_accel.host.from_bins import bin_memory, choose_from_bins
from qr_sampler_accel.host.from_head import UNKNOWN, choose_from_head
from qr_sampler_accel.host.leading import fold, leading_tokens

__all__ = [
    "ENTROPY",
    "MAXIMUM",
    "NUMBERS",
    "SETTLED",
    "VARENTROPY",
    "WEIGHT",
    "WEIGHT_AT_T",
    "measure_few_rows",
    "measure_rows",
    "pick_few_rows",
    "pick_rows",
    "weigh_rows",
]

MAXIMUM: Final = 0
ENTROPY: Final = 1
VARENTROPY: Final = 2
SETTLED: Final = 3
WEIGHT: Final = 4
WEIGHT_AT_T: Final = 5
NUMBERS: Final = 6

FEW_COLUMNS: Final = 64
"""Maxima that are kept side by side in a row of few tokens."""


@compiled
def measure_rows(logits, filters, settle, inverse, numbers, ids, distance, counts):  # type: ignore[no-untyped-def]
    """Measures B rows and finds their leading tokens.

    Args:
        logits: Shape ``(B, V)``, float32, consecutive.
        filters: Filters of the rows. Shape ``(B, FILTER_COLUMNS)``.
        settle: How many moments have to be settled. Shape ``(B,)``.
        inverse: 1 / T; NaN where it is unknown yet. Shape ``(B,)``.
        numbers: Receives what is measured. Shape ``(NUMBERS, B)``.
        ids: Receives the leading tokens. Shape ``(B, N)``.
        distance: Receives their distances. Shape ``(B, N)``.
        counts: Receives how many there are. Shape ``(B,)``.

    Returns:
        How many rows have a finite maximum, and how many of them have unsettled moments.
    """
    columns = np.empty(-(-logits.shape[1] // COLUMN_HEIGHT), dtype=np.float32)
    groups, lanes = np.empty(GROUPS, dtype=np.float32), moment_memory()
    decidable = unsettled = 0
    for line in range(len(logits)):
        row = logits[line]
        maximum = fold(row, columns)
        numbers[MAXIMUM, line] = maximum
        counts[line] = 0
        if not math.isfinite(maximum):
            continue
        decidable += 1
        # The leading tokens first, while the row is in the processor's cache.
        counts[line] = leading_tokens(row, maximum, columns, groups, ids[line], distance[line])
        entropy, varentropy, weight, settled = float32_moments(row, maximum, settle[line], lanes)
        numbers[ENTROPY, line], numbers[VARENTROPY, line] = entropy, varentropy
        numbers[WEIGHT, line], numbers[SETTLED, line] = weight, settled
        unsettled += not settled
        if inverse[line] == 1.0:
            numbers[WEIGHT_AT_T, line] = weight
        elif filters[line, NEEDS_TOTAL] and counts[line] and inverse[line] > 0.0:
            numbers[WEIGHT_AT_T, line] = row_weight(row, maximum, inverse[line], *lanes)
        else:
            numbers[WEIGHT_AT_T, line] = np.nan
    return decidable, unsettled


@compiled
def weigh_rows(logits, lines, filters, inverse, numbers, counts):  # type: ignore[no-untyped-def]
    """Completes the weights of rows whose temperatures have become known.

    Args:
        logits: Shape ``(B, V)``.
        lines: The D rows among them. Shape ``(D,)``.
        filters: Filters of the D rows.
        inverse: 1 / T of the D rows.
        numbers: What has been measured of the D rows.
        counts: How many leading tokens the D rows have.
    """
    lanes = moment_memory()
    for i in range(lines.size):
        if inverse[i] == 1.0:
            numbers[WEIGHT_AT_T, i] = numbers[WEIGHT, i]
        elif filters[i, NEEDS_TOTAL] and counts[i] and math.isnan(numbers[WEIGHT_AT_T, i]):
            row, maximum = logits[lines[i]], np.float32(numbers[MAXIMUM, i])
            numbers[WEIGHT_AT_T, i] = row_weight(row, maximum, inverse[i], *lanes)


@compiled
def pick_rows(  # type: ignore[no-untyped-def]
    logits,
    lines,
    filters,
    deviation,
    inverse,
    u,
    numbers,
    heads,
    unit,
    scratch,
    chosen,
    probability,
):
    """Selects the tokens of D rows.

    Args:
        logits: Shape ``(B, V)``.
        lines: The D rows among them. Shape ``(D,)``.
        filters: Filters of the D rows.
        deviation: Standard deviations of their logits. Shape ``(D,)``.
        inverse: 1 / T. Shape ``(D,)``.
        u: Selects the tokens. Shape ``(D,)``.
        numbers: What has been measured of the D rows.
        heads: Their leading tokens, the distances of these, and how many they are.
        unit: The mass of the most probable token.
        scratch: Working memory, of ``scratch_size`` numbers.
        chosen: Receives tokens, ranks and numbers of candidates; the token is UNKNOWN where it
            cannot be told. Shape ``(3, D)``.
        probability: Receives their probabilities. Shape ``(D,)``.

    Returns:
        How many tokens cannot be told.
    """
    ids, distance, counts = heads
    masses = np.empty((2, ids.shape[1]), dtype=np.float64)
    beside, bins = (masses[0], masses[1], mass_memory()), bin_memory(logits.shape[1], scratch)
    unknown = 0
    for i in range(lines.size):
        row, token, rank, share, stop = logits[lines[i]], UNKNOWN, 0, 0.0, 0
        if filters[i, TYPICAL_P] == 1.0:
            farthest = filters[i, TOP_N_SIGMA] * deviation[i]
            question, count = (filters[i], farthest, inverse[i], u[i]), counts[i]
            if count:
                head = (ids[i, :count], distance[i, :count])
                weights = (numbers[WEIGHT, i], numbers[WEIGHT_AT_T, i])
                token, rank, share, stop = choose_from_head(
                    question, head, row.size, unit, weights, beside
                )
            if token == UNKNOWN:
                whole = (row, np.float32(numbers[MAXIMUM, i]))
                token, rank, share, stop = choose_from_bins(question, whole, unit, bins)
        unknown += token == UNKNOWN
        chosen[0, i], chosen[1, i], chosen[2, i], probability[i] = token, rank, stop, share
    return unknown


@compiled
def measure_few_rows(logits, settle, numbers, scratch):  # type: ignore[no-untyped-def]
    """Measures B rows of up to FEW tokens; arguments and result as for :func:`measure_rows`."""
    memory = few_memory(scratch)
    columns = memory.masses.view(np.float32)[: min(FEW_COLUMNS, logits.shape[1])]
    decidable = unsettled = 0
    for line in range(len(logits)):
        row = logits[line]
        maximum = fold(row, columns)
        numbers[MAXIMUM, line] = maximum
        if not math.isfinite(maximum):
            continue
        decidable += 1
        entropy, varentropy, weight, settled = few_moments(row, maximum, settle[line], memory)
        numbers[ENTROPY, line], numbers[VARENTROPY, line] = entropy, varentropy
        numbers[WEIGHT, line], numbers[SETTLED, line] = weight, settled
        unsettled += not settled
    return decidable, unsettled


@compiled
def pick_few_rows(  # type: ignore[no-untyped-def]
    logits, lines, filters, deviation, inverse, u, numbers, unit, scratch, chosen, probability
):
    """Selects the tokens of D rows of up to FEW tokens; arguments as in :func:`pick_rows`."""
    memory = few_memory(scratch)
    unknown = 0
    for i in range(lines.size):
        token, rank, share, stop = UNKNOWN, 0, 0.0, 0
        if filters[i, TYPICAL_P] == 1.0:
            farthest = filters[i, TOP_N_SIGMA] * deviation[i]
            question = (filters[i], farthest, inverse[i], u[i])
            whole = (logits[lines[i]], np.float32(numbers[MAXIMUM, i]))
            token, rank, share, stop = choose_from_few(question, whole, unit, memory)
        unknown += token == UNKNOWN
        chosen[0, i], chosen[1, i], chosen[2, i], probability[i] = token, rank, stop, share
    return unknown
