# SPDX-License-Identifier: Apache-2.0
"""Entropy, varentropy and spread of one row of logits.

Adaptive temperatures depend on these numbers, and the last digits of a sum depend on the order of
addition. What reaches a temperature or a threshold is therefore rounded, and a value whose rounding
is in doubt is computed again, with sums that are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from qr_sampler._typing import Distances, FloatArray, Logits
from qr_sampler.selection.masses import EXPONENT_FLOOR, exponentials
from qr_sampler.temperature.base import STATISTICS_STEP

__all__ = ["Moments", "is_settled", "logit_deviation", "row_moments"]

FLOAT64_ERROR: Final = 2.0**-40
"""Bound, with a wide margin, of the relative error of a float64 sum over a row."""

Summation = Callable[[FloatArray], float]


class Moments(NamedTuple):
    """Entropy and varentropy of a row at temperature 1."""

    entropy_nats: float
    """Mean of -ln p under p."""
    varentropy_nats2: float
    """Variance of -ln p under p."""

    @classmethod
    def from_sums(cls, weight: float, first: float, second: float) -> Moments:
        """Returns the moments for weights e_i = exp(d_i), d_i the distance to the maximum.

        -ln p_i = ln S - d_i, hence H = ln S - A / S and its variance is Q / S - (A / S)**2.

        Args:
            weight: S, the sum of e_i.
            first: A, the sum of e_i d_i.
            second: Q, the sum of e_i d_i**2.
        """
        mean = first / weight
        entropy, varentropy = math.log(weight) - mean, second / weight - mean * mean
        return cls(max(entropy, 0.0), max(varentropy, 0.0))


def row_moments(distance: Distances) -> Moments:
    """Returns the moments of one row, the same on every machine once they are rounded.

    Args:
        distance: Shape ``(V,)``, float32, maximum 0; ``-inf`` marks masked tokens.
    """
    exponents = np.maximum(distance.astype(np.float64), EXPONENT_FLOOR)
    moments = _moments(np.exp(exponents), exponents, lambda values: float(values.sum()))
    error = FLOAT64_ERROR * (1.0 + exponents.size.bit_length() + moments.varentropy_nats2)
    if all(is_settled(value, error) for value in moments):
        return moments
    return _moments(exponentials(distance, 1.0), exponents, math.fsum)


def is_settled(value: float, error: float) -> bool:
    """Whether all numbers within *error* of *value* are nearest to one multiple of the step."""
    lower, upper = (value - error) / STATISTICS_STEP, (value + error) / STATISTICS_STEP
    return round(lower) == round(upper)


def logit_deviation(logits: Logits) -> float:
    """Returns the standard deviation of the finite logits of one row, rounded to float32.

    The population formula: sqrt of the mean squared deviation from the mean.

    Args:
        logits: Shape ``(V,)`` with at least one finite value.
    """
    values = logits[np.isfinite(logits)].astype(np.float64)
    deviation = _deviation(values, lambda terms: float(terms.sum()))
    error = FLOAT64_ERROR * (deviation + float(np.abs(values).max()))
    if np.float32(max(deviation - error, 0.0)) != np.float32(deviation + error):
        deviation = _deviation(values, math.fsum)
    return float(np.float32(deviation))


def _moments(weights: FloatArray, exponents: FloatArray, total: Summation) -> Moments:
    first = weights * exponents
    return Moments.from_sums(total(weights), total(first), total(first * exponents))


def _deviation(values: FloatArray, total: Summation) -> float:
    mean = total(values) / values.size
    return math.sqrt(total((values - mean) ** 2) / values.size)
