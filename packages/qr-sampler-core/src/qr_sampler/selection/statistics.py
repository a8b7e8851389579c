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

from qr_sampler.arrays import Distances, FloatArray, Logits
from qr_sampler.selection.masses import EXPONENT_FLOOR, exponentials
from qr_sampler.temperature.base import STATISTICS_STEP

__all__ = [
    "FLOAT64_ERROR",
    "Moments",
    "exact_sum",
    "is_settled",
    "logit_deviation",
    "row_moments",
    "settled_deviation",
]

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


def row_moments(distance: Distances, scratch: FloatArray | None = None) -> Moments:
    """Returns the moments of one row, the same on every machine once they are rounded.

    Args:
        distance: Shape ``(V,)``, float32, maximum 0; ``-inf`` marks masked tokens.
        scratch: Working memory. Shape ``(2, V)``.
    """
    exponents, weights = np.empty((2, distance.size)) if scratch is None else scratch
    np.maximum(distance, EXPONENT_FLOOR, out=exponents)
    np.exp(exponents, out=weights)
    moments = _moments(weights, exponents, _plain_sum)
    error = FLOAT64_ERROR * (1.0 + distance.size.bit_length() + moments.varentropy_nats2)
    if all(is_settled(value, error) for value in moments):
        return moments
    return _moments(exponentials(distance, 1.0), exponents, exact_sum)


def is_settled(value: float, error: float) -> bool:
    """Whether all numbers within *error* of *value* are nearest to one multiple of the step."""
    lower, upper = (value - error) / STATISTICS_STEP, (value + error) / STATISTICS_STEP
    return round(lower) == round(upper)


def logit_deviation(logits: Logits, scratch: FloatArray | None = None) -> float:
    """Returns the standard deviation of the finite logits of one row, rounded to float32.

    The population formula: sqrt of the mean squared deviation from the mean.

    Args:
        logits: Shape ``(V,)`` with at least one finite value.
        scratch: Working memory. Shape ``(2, V)``.
    """
    values, spare = np.empty((2, logits.size)) if scratch is None else scratch
    np.subtract(logits, logits.max(), out=values, dtype=np.float64)
    masked = np.isinf(values, out=spare.view(np.bool_)[: values.size])
    np.putmask(values, masked, 0.0)
    count = values.size - int(np.count_nonzero(masked))
    spread = -float(values.min())
    values -= _plain_sum(values) / count
    np.putmask(values, masked, 0.0)
    values *= values
    return settled_deviation(logits, math.sqrt(_plain_sum(values) / count), spread)


def settled_deviation(logits: Logits, deviation: float, spread: float) -> float:
    """Returns what :func:`logit_deviation` returns, given what float64 sums make of it.

    Args:
        logits: Shape ``(V,)`` with at least one finite value.
        deviation: Their standard deviation from distances to the largest of them.
        spread: The largest of those distances.
    """
    if not spread:
        return 0.0
    top = float(logits.max())
    # Of the mean, here and in exact sums, whose own result is one number of float64. Around a wrong
    # mean the squares are larger by the square of its error: what is left is of second order.
    error = FLOAT64_ERROR * spread + 2.0**-52 * (abs(top) + spread)
    error = FLOAT64_ERROR * deviation + error * min(1.0, error / deviation)
    if np.float32(max(deviation - error, 0.0)) != np.float32(deviation + error):
        deviation = _exact_deviation(logits[np.isfinite(logits)].astype(np.float64))
    return float(np.float32(deviation))


def _exact_deviation(values: FloatArray) -> float:
    mean = exact_sum(values) / values.size
    return math.sqrt(exact_sum((values - mean) ** 2) / values.size)


def exact_sum(values: FloatArray) -> float:
    """Returns what ``math.fsum`` returns, without looking at one value after the other.

    The leading bits of all values, which are multiples of one power of two, add up without any
    rounding; then the next ones do, until what is left cannot change the result (Rump, Ogita and
    Oishi 2008, SIAM J. Sci. Comput. 31, 189).

    Args:
        values: Shape ``(N,)``, N from 1 to 2**40, finite, and so is N times the largest of them.
    """
    sums: list[float] = []
    rest, leading = values.copy(), np.empty_like(values)
    while True:
        bound = float(max(rest.max(), -rest.min())) * rest.size
        lowest, highest = math.fsum([*sums, -bound]), math.fsum([*sums, bound])
        if lowest == highest:
            return lowest
        # A power of two, at least twice the bound: adding it leaves the leading bits.
        power = math.ldexp(1.0, math.frexp(bound)[1] + 1)
        np.add(rest, power, out=leading)
        leading -= power
        sums.append(_plain_sum(leading))
        rest -= leading


def _moments(weights: FloatArray, exponents: FloatArray, total: Summation) -> Moments:
    """Returns the moments; *weights* are overwritten."""
    weight = total(weights)
    weights *= exponents
    first = total(weights)
    weights *= exponents
    return Moments.from_sums(weight, first, total(weights))


def _plain_sum(values: FloatArray) -> float:
    return float(values.sum())
