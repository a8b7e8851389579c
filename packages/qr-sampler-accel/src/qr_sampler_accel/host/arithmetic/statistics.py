# SPDX-License-Identifier: Apache-2.0
"""The spread of a row of logits as compiled loops."""

from __future__ import annotations

import math

import numpy as np

from qr_sampler.arrays import Logits
from qr_sampler.selection.statistics import settled_deviation
from qr_sampler_accel.host.arithmetic.compiler import summing
from qr_sampler_accel.host.arithmetic.masses import LANES

__all__ = ["compiled_deviation"]


@summing
def _distances(logits, top):  # type: ignore[no-untyped-def]
    """Returns number, sum and smallest of the finite distances of up to LANES tokens to *top*."""
    count, total, lowest = 0, 0.0, 0.0
    for j in range(logits.size):
        d = np.float64(logits[j]) - top
        finite = d > -np.inf
        d = d if finite else 0.0
        count += finite
        total += d
        lowest = min(lowest, d)
    return count, total, lowest


@summing
def _squares(logits, top, mean):  # type: ignore[no-untyped-def]
    """Returns the sum of the squared differences between finite distances and their *mean*."""
    total = 0.0
    for j in range(logits.size):
        d = np.float64(logits[j]) - top - mean
        d = d if d > -np.inf else 0.0
        total += d * d
    return total


@summing
def _variance(logits, top):  # type: ignore[no-untyped-def]
    """Returns variance and spread of a row.

    Sums of so few numbers, and then of so few sums, are by far more accurate than they have to be.
    """
    count, total, lowest = 0, 0.0, 0.0
    for start in range(0, logits.size, LANES):
        found = _distances(logits[start : start + LANES], top)
        count, total, lowest = count + found[0], total + found[1], min(lowest, found[2])
    squares = 0.0
    for start in range(0, logits.size, LANES):
        squares += _squares(logits[start : start + LANES], top, total / count)
    return squares / count, -lowest


def compiled_deviation(logits: Logits) -> float:
    """Returns what ``logit_deviation`` returns.

    Args:
        logits: Shape ``(V,)`` with at least one finite value.
    """
    variance, spread = _variance(logits, np.float64(logits.max()))
    return settled_deviation(logits, math.sqrt(variance), spread)
