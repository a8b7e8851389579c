# SPDX-License-Identifier: Apache-2.0
"""Uniform numbers from z-scores, and how far the lattice of integer sums lets them be uniform."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np

from qr_sampler.amplification.base import (
    U_MAX,
    U_MIN,
    AmplificationResult,
    Labels,
    shared_array,
)
from qr_sampler.amplification.laws.fair_bits import FairBitsLaw, law_of_bits, law_of_bytes
from qr_sampler.arrays import FloatArray, IndexArray

__all__ = [
    "amplify_normal",
    "lattice_gap",
    "normal_cdf",
    "z_distance_of_bits",
    "z_distance_of_bytes",
]

_ATOMS: Final = 1_025
_REACH_DEVIATIONS: Final = 6.0
_MINUS_ROOT_2: Final = -math.sqrt(2.0)


def normal_cdf(z: FloatArray) -> FloatArray:
    """Returns the standard normal distribution function, accurate in the lower tail.

    ``erfc(-z / sqrt(2)) / 2`` keeps its relative accuracy where ``(1 + erf) / 2`` cancels
    (Abramowitz and Stegun, 7.1.2 and 26.2.29).

    Args:
        z: Shape ``(B,)``, float64.
    """
    return np.array([0.5 * math.erfc(each) for each in (z / _MINUS_ROOT_2).tolist()])


def amplify_normal(
    values: IndexArray, mean: float, deviation: float, baseline: Labels
) -> AmplificationResult:
    """Returns u = Phi(z) with z = (value - mean) / deviation, kept inside the interval (0, 1).

    Phi rounds to 1 some 8.3 standard deviations out; the clamp moves a mass of less than 1e-16.

    Args:
        values: Shape ``(B,)``, the statistics of the blocks.
        mean: What they are expected to be.
        deviation: Their standard deviation.
        baseline: Digest of the baseline that says so.
    """
    # For a few dozen rows Python's numbers are faster than NumPy's functions.
    z, u = [], []
    for value in values.tolist():
        score = (value - mean) / deviation
        z.append(score)
        u.append(min(max(0.5 * math.erfc(score / _MINUS_ROOT_2), U_MIN), U_MAX))
    return AmplificationResult(np.array(u), np.array(z), _lattice_step(deviation), baseline)


@lru_cache(maxsize=64)
def _lattice_step(deviation: float) -> FloatArray:
    return shared_array(lattice_gap(1.0 / deviation))


def lattice_gap(z_step: float) -> float:
    """Returns the widest gap between the u of neighbouring sums: ``Phi(h / 2) - Phi(-h / 2)``.

    Args:
        z_step: The h by which z grows when the sum grows by one.
    """
    return math.erf(z_step / math.sqrt(8.0))


@lru_cache(maxsize=1_024)
def z_distance_of_bytes(count: int) -> float:
    """Returns the Kolmogorov distance of ``Phi(z)`` from uniform for *count* uniform bytes."""
    return _distance(law_of_bytes(count))


@lru_cache(maxsize=1_024)
def z_distance_of_bits(count: int) -> float:
    """Returns the Kolmogorov distance of ``Phi(z)`` from uniform for *count* fair bits."""
    return _distance(law_of_bits(count))


def _distance(law: FairBitsLaw) -> float:
    """Returns max |P(S <= s) - Phi(z)| and |P(S < s) - Phi(z)| over the atoms s of *law*.

    The difference varies slowly from atom to atom, so that of a long law every atom that matters is
    represented by one of 1,025, the median among them; this changes the fifth digit at most.
    """
    middle = law.total // 2
    reach = min(middle, math.ceil(_REACH_DEVIATIONS * law.deviation))
    atoms = middle + np.unique(np.linspace(-reach, reach + 1, _ATOMS).astype(np.intp))
    atoms = np.clip(np.append(atoms, middle), 0, law.total)
    centre, mass = law.evaluate(atoms)
    u = normal_cdf((atoms - law.total / 2.0) / law.deviation)
    return float((np.abs(centre - u) + mass / 2.0).max())
