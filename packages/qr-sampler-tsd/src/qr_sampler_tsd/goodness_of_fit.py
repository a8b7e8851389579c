# SPDX-License-Identifier: Apache-2.0
"""The statistics of the gate."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import stats

from qr_sampler_tsd._typing import FloatArray, TokenArray

__all__ = ["chi_square", "low_bits", "repeats", "sampling_floor", "stretches"]

_LEAST_EXPECTED: Final = 25.0
"""Cells with fewer expected draws are merged. At 5, the usual rule, a statistic has heavier tails
than chi-square where false alarms are to be as rare as the gate's."""

_MOST_GROUPS: Final = 64


def chi_square(counts: TokenArray, probs: FloatArray) -> float:
    """Returns the p-value of Pearson's test, the least probable cells merged to 25 expected."""
    expected = counts.sum() * probs
    order = np.argsort(expected)
    counts, expected = counts[order], expected[order]
    small = int(np.count_nonzero(expected < _LEAST_EXPECTED))
    if small:
        enough = int(np.searchsorted(np.cumsum(expected), _LEAST_EXPECTED)) + 1
        merged = min(max(small, enough), expected.size)
        counts = np.append(counts[:merged].sum(), counts[merged:])
        expected = np.append(expected[:merged].sum(), expected[merged:])
    if expected.size < 2:
        return 1.0
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return float(stats.chi2.sf(statistic, expected.size - 1))


def _groups(hits: int, tail_count: int) -> int:
    return min(_MOST_GROUPS, tail_count, int(hits / _LEAST_EXPECTED))


def stretches(ranks: TokenArray, tail_count: int) -> float:
    """Returns the p-value of equal stretches of the tail."""
    groups = _groups(ranks.size, tail_count)
    if groups < 2:
        return 1.0
    # Rank r is in the stretch floor(r groups / n), which begins at ceil(stretch n / groups).
    starts = -(-np.arange(groups + 1) * tail_count // groups)
    counts = np.bincount(ranks * groups // tail_count, minlength=groups)
    return chi_square(counts, np.diff(starts) / tail_count)


def low_bits(ranks: TokenArray, tail_count: int) -> float:
    """Returns the p-value of the tail ranks modulo a power of two."""
    groups = _groups(ranks.size, tail_count)
    if groups < 2:
        return 1.0
    modulus = 1 << (groups.bit_length() - 1)
    sizes = (tail_count - np.arange(modulus) + modulus - 1) // modulus
    return chi_square(np.bincount(ranks % modulus, minlength=modulus), sizes / tail_count)


def repeats(ranks: TokenArray, tail_count: int) -> float:
    """Returns a bound on the p-value of so many tail tokens that were drawn before.

    Tail tokens made of too few random bits lie on a lattice and come again too soon. Draw i repeats
    one of the i - 1 before with a probability of at most (i - 1) / n whatever these were, so that
    the number of repeats is at most that of independent events; above its mean a binomial
    distribution of the same mean bounds their sum (Hoeffding 1956, theorem 4).
    """
    count = ranks.size - np.unique(ranks).size
    chances = np.minimum(1.0, np.arange(ranks.size) / max(1, tail_count))
    if count < chances.sum() + 1:
        return 1.0
    return float(stats.binom.sf(count - 1, ranks.size, chances.mean()))


def sampling_floor(probs: FloatArray, samples: int, exceeded: float) -> float:
    """Returns what the total variation of exact frequencies exceeds with *exceeded* at most.

    Its mean is at most half the sum of the standard deviations of the frequencies (Jensen), and as
    one draw changes it by at most 1 / N, it exceeds its mean by t with a probability of at most
    exp(-2 N t**2) (McDiarmid 1989).
    """
    mean = 0.5 * float(np.sqrt((probs * (1 - probs)).clip(min=0) / samples).sum())
    return mean + float(np.sqrt(-np.log(exceeded) / (2 * samples)))
