# SPDX-License-Identifier: Apache-2.0
"""Whether a run agrees with the theory: acceptance against overlap, text against target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import binomtest, chi2

from qr_sampler_tsd._typing import FloatArray, TokenArray

__all__ = [
    "CONFIDENCE",
    "ChiSquare",
    "acceptance_interval",
    "acceptance_z",
    "context_chi_square",
    "prefix_z",
]

CONFIDENCE: Final = 0.999
"""Of the interval of the acceptance: a correct run is outside once in 1000."""

CELL_EXPECTATION: Final = 5.0
"""Least expected count of a cell; the usual rule for Pearson's statistic."""


class ChiSquare(NamedTuple):
    """Pearson's test of emitted tokens."""

    statistic: float
    """Sum of (observed - expected)^2 / expected; infinite when an impossible token was emitted."""
    degrees: int
    """Degrees of freedom; 0 when there was too little to test."""
    p_value: float | None
    """Probability of a statistic at least as large if the text follows the target; ``None`` when
    there was too little to test."""
    contexts: int
    """Contexts that were tested."""


def acceptance_interval(accepted: int, tests: int) -> tuple[float, float]:
    """Returns the interval of Wilson (1927) for a share, at :data:`CONFIDENCE`."""
    interval = binomtest(accepted, tests).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def acceptance_z(accepted: int, predictions: FloatArray) -> float:
    """Returns how many standard deviations the acceptances are off their prediction.

    Tests are independent given their contexts, so their variance is sum m (1 - m). It is 0 when all
    outcomes are certain; then 0 or infinity is returned.

    Args:
        accepted: How many tests accepted.
        predictions: Shape ``(N,)``: probability m of each test.
    """
    excess = accepted - float(predictions.sum())
    # Rounding makes certain outcomes uncertain by 1e-16 each.
    variance = float((predictions * (1 - predictions)).clip(0).sum())
    if variance < 1e-9:
        return 0.0 if abs(excess) < 0.5 else float(np.inf) * float(np.sign(excess))
    return excess / float(np.sqrt(variance))


def prefix_z(stood: Sequence[int], prefixes: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Returns :func:`acceptance_z` of the blocks of which at least 1, 2 ... L drafts stand.

    In block verification at least i drafts stand with probability P_i, given the first i of them,
    whatever the others are: what the proof of Sun et al. 2025, arXiv 2403.10444, rests on, and what
    the tests enumerate. So the outcomes for one i are independent given the drafts; those for
    different i are not, and each i has its own entry.

    Args:
        stood: How many drafts stand in each of N passes.
        prefixes: P_1 .. P_L of each pass.
    """
    reached = np.asarray(stood)
    return tuple(
        acceptance_z(int(np.count_nonzero(reached >= least)), predictions)
        for least, predictions in enumerate(np.asarray(prefixes).T, start=1)
    )


def context_chi_square(
    row_of: Callable[[int], FloatArray], contexts: Sequence[int], tokens: Sequence[int]
) -> ChiSquare:
    """Tests the tokens after each context against its own row, and adds the statistics up.

    The counts of all contexts together do not follow the mean of the rows: how often a context
    occurs is itself random. Given the context, tokens are independent draws from its row. Rare
    tokens share cells of at least :data:`CELL_EXPECTATION` expected counts, which depend on the
    target and on the number of visits, never on what was drawn.

    Args:
        row_of: Returns the distribution after a context, shape ``(V,)``.
        contexts: N contexts.
        tokens: N tokens, each emitted after the context of the same place.
    """
    order = np.argsort(contexts, kind="stable")
    visited, starts = np.unique(np.asarray(contexts)[order], return_index=True)
    groups = np.split(np.asarray(tokens)[order], starts[1:])
    statistic, degrees, tested = 0.0, 0, 0
    for context, drawn in zip(visited.tolist(), groups, strict=True):
        row = row_of(context)
        if not row[drawn].all():
            return ChiSquare(float("inf"), 1, 0.0, tested + 1)
        row_statistic, free = _pearson(row, drawn)
        statistic, degrees, tested = statistic + row_statistic, degrees + free, tested + (free > 0)
    p_value = float(chi2.sf(statistic, degrees)) if degrees else None
    return ChiSquare(statistic, degrees, p_value, tested)


def _pearson(row: FloatArray, drawn: TokenArray) -> tuple[float, int]:
    """Returns statistic and degrees of freedom for one context."""
    order = np.argsort(-row, kind="stable")
    expected = row[order] * drawn.size
    single = int(np.searchsorted(-expected, -CELL_EXPECTATION, side="right"))
    cell = np.arange(row.size)
    rest = np.cumsum(expected[single:])
    # A token of the rest weighs less than half a cell, so every cell but the last is large enough.
    cell[single:] = single + np.floor(rest / (2 * CELL_EXPECTATION)).astype(np.int64)
    masses = np.bincount(cell, weights=expected)
    if masses.size > 1 and masses[-1] < CELL_EXPECTATION:
        cell = np.minimum(cell, masses.size - 2)
        masses = np.bincount(cell, weights=expected)
    if masses.size < 2:
        return 0.0, 0
    cell_of = np.empty(row.size, dtype=np.int64)
    cell_of[order] = cell
    counts = np.bincount(cell_of[drawn], minlength=masses.size)
    return float(((counts - masses) ** 2 / masses).sum()), masses.size - 1
