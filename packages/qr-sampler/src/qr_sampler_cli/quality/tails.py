# SPDX-License-Identifier: Apache-2.0
"""Tail probabilities in plain Python, and their correction for being many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

__all__ = ["binomial_tail", "chi_square_tail", "holm", "kolmogorov_tail", "normal_tails"]

_MOST_TERMS: Final = 100_000
_FEW: Final = 10_000
"""Successes whose factors are added one by one."""
_PRECISION: Final = 1e-15
_TINY: Final = 1e-300
_FLAT: Final = 0.18
"""Below it Kolmogorov's tail is 1 in double precision."""


def normal_tails(z: float) -> float:
    """Returns the probability of a standard normal number at least as far from 0 as *z*."""
    return math.erfc(abs(z) / math.sqrt(2.0))


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Returns the probability of a chi-square of at least *statistic*.

    Q(a, x) at half of both: the series of P below a + 1, and Lentz's continued fraction of Q above
    (Abramowitz and Stegun 6.5.29 and 6.5.31), with a relative error of about 1e-12.

    Args:
        statistic: Not negative.
        degrees: Degrees of freedom, at least 1.
    """
    a, x = degrees / 2.0, statistic / 2.0
    if x <= 0.0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:
        return max(0.0, 1.0 - scale * _lower_series(a, x))
    return min(1.0, scale * _upper_fraction(a, x))


def _lower_series(a: float, x: float) -> float:
    term = total = 1.0 / a
    for n in range(1, _MOST_TERMS):
        term *= x / (a + n)
        total += term
        if term < total * _PRECISION:
            break
    return total


def _upper_fraction(a: float, x: float) -> float:
    b = x + 1.0 - a
    c, d = 1.0 / _TINY, 1.0 / b
    fraction = d
    for n in range(1, _MOST_TERMS):
        numerator = -n * (n - a)
        b += 2.0
        d = 1.0 / _not_zero(numerator * d + b)
        c = _not_zero(b + numerator / c)
        fraction *= d * c
        if abs(d * c - 1.0) < _PRECISION:
            break
    return fraction


def _not_zero(number: float) -> float:
    return number if abs(number) > _TINY else _TINY


def kolmogorov_tail(distance: float) -> float:
    """Returns 2 sum_k (-1)**(k - 1) exp(-2 k**2 d**2), the tail of Kolmogorov's law.

    Smirnov (Ann. Math. Statist. 19, 1948) gives it as the limit for sqrt(n m / (n + m)) times the
    largest distance of two empirical laws.

    Args:
        distance: The scaled distance d, not negative.
    """
    if distance < _FLAT:
        return 1.0
    total, k = 0.0, 1
    while (term := math.exp(-2.0 * (k * distance) ** 2)) > _TINY and k < 100:
        total += term if k % 2 else -term
        k += 1
    return min(1.0, max(0.0, 2.0 * total))


def binomial_tail(least: int, n: int, probability: float) -> float:
    """Returns P(X >= least) for X binomial with *n* trials, by the sum of the smaller tail.

    Args:
        least: Number of successes.
        n: Number of trials.
        probability: Of each success, in (0, 1).
    """
    if least <= 0:
        return 1.0
    if least < n * probability:
        return 1.0 - binomial_tail(n - least + 1, n, 1.0 - probability)
    odds = math.log(probability), math.log1p(-probability)
    # Between logarithms of factorials of 10**14 and more, a difference would have no digits left.
    falling = sum(math.log(n - i) for i in range(least)) if least <= _FEW else None
    total, largest = 0.0, 0.0
    for k in range(least, n + 1):
        term = math.exp(
            (math.lgamma(n + 1) - math.lgamma(n - k + 1) if falling is None else falling)
            - math.lgamma(k + 1)
            + k * odds[0]
            + (n - k) * odds[1]
        )
        total, largest = total + term, max(largest, term)
        if falling is not None and k < n:
            falling += math.log(n - k)
        # Also where all of them are too small for a float.
        if term <= largest * 1e-17:
            break
    return min(1.0, total)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted by the step-down procedure of Holm (Scand. J. Statist. 6, 1979).

    The probability of any adjusted value at or below alpha is at most alpha while all null
    hypotheses hold, however the tests depend on each other.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
