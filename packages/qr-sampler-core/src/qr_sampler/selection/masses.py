# SPDX-License-Identifier: Apache-2.0
"""Probability masses in fixed point, so that every sum of them is exact.

A mass is a whole number, computed by IEEE 754 additions and multiplications alone: no library's
``exp`` takes part. The same logits therefore have the same masses on every processor, and sums of
masses do not depend on the order of addition.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np

from qr_sampler.arrays import Distances, FloatArray, Logits, MassArray

__all__ = [
    "EXPONENT_FLOOR",
    "LIBRARY_ERROR",
    "LN2_HIGH",
    "LN2_LOW",
    "LOG2_E",
    "MASSLESS",
    "ROUNDER",
    "TAYLOR",
    "ceil_product",
    "ceil_products",
    "distances",
    "exponentials",
    "fixed_point_masses",
    "library_masses",
    "unit_exponent",
]

EXPONENT_FLOOR: Final = -700.0
"""Exponents are raised to it: exp(-700) is still a normal float64, and no sum notices it."""

MASSLESS: Final = -26.0
"""exp() of it is below a fifth of a unit: no token with this exponent or a lower one has a mass."""

LIBRARY_ERROR: Final = 2.0**-43
"""Bound of the relative difference between NumPy's ``exp`` and ours, with a wide margin: they are
good to 2**-50 and 2**-45."""

LOG2_E: Final = 1.4426950408889634
LN2_HIGH: Final = 0.6931471803691238
"""ln 2 to 32 bits, so that its product with a small integer is exact (Cody and Waite 1980)."""
LN2_LOW: Final = 1.9082149292705877e-10
"""ln 2 - LN2_HIGH."""

ROUNDER: Final = 1.5 * 2.0**52
"""Adding it rounds a small float64 to an integer, ties to even, and leaves that integer in the
lowest bits of the sum."""

TAYLOR: Final = tuple(1.0 / math.factorial(degree) for degree in range(11, -1, -1))
"""Coefficients of exp, highest degree first; for |r| <= ln(2)/2 the remainder is below 2**-46."""


@lru_cache(maxsize=64)
def unit_exponent(vocab_size: int) -> int:
    """Returns the b for which the most probable token of a row has the mass 2**b.

    35 for up to 2**18 tokens and one less for every further doubling: the total never exceeds
    2**53, the largest range in which float64 holds every integer.
    """
    return 53 - max(18, math.ceil(math.log2(vocab_size)))


def distances(logits: Logits) -> Distances:
    """Returns each logit minus the maximum of its row, rounded to float32.

    Args:
        logits: Shape ``(B, V)``, or ``(V,)`` for one row, float32; every row has a finite maximum.

    Returns:
        The same shape, float32, at most 0; ``-inf`` for masked tokens and where the difference is
        too large for float32.
    """
    with np.errstate(over="ignore"):
        below: Distances = logits - logits.max(axis=-1, keepdims=True)
    return below


def exponentials(distance: Distances, inverse_temperature: FloatArray | float) -> FloatArray:
    """Returns exp(d / T) in float64, to a relative error of 2**-45.

    exp(y) = 2**k exp(r) with k = rint(y / ln 2), and the Taylor polynomial of degree 11 for exp(r).
    Every step is one correctly rounded operation, so the result is the same everywhere. It grows
    with *distance*: two float32 numbers that differ do so by far more than the rounding.

    Args:
        distance: float32 or float64, at most 0, any shape.
        inverse_temperature: 1 / T, positive, broadcast against *distance*.

    Returns:
        The shape of *distance*, in [exp(-700), 1]; smaller values are raised to that floor.
    """
    y = distance.astype(np.float64)
    y *= inverse_temperature
    np.maximum(y, EXPONENT_FLOOR, out=y)
    k = y * LOG2_E
    k += ROUNDER
    exponent_bits = k.view(np.int64) << 52
    k -= ROUNDER
    y -= k * LN2_HIGH
    y -= k * LN2_LOW
    result = y * TAYLOR[0]
    result += TAYLOR[1]
    for coefficient in TAYLOR[2:]:
        result *= y
        result += coefficient
    # The exponent field of an IEEE 754 double begins at bit 52: adding k there multiplies by 2**k.
    result.view(np.int64)[...] += exponent_bits
    return result


def fixed_point_masses(
    distance: Distances, inverse_temperature: FloatArray | float, exponent: int = 35
) -> FloatArray:
    """Returns the unnormalised softmax masses of tokens as whole numbers.

    The mass is exp(d / T) * 2**exponent, rounded to the nearest integer, ties to even. A token less
    than 2**-36 times as probable as the most probable one has the mass 0, and so has a masked one.

    Args:
        distance: float32, at most 0, any shape; see :func:`distances`.
        inverse_temperature: 1 / T, positive, broadcast against *distance*.
        exponent: What :func:`unit_exponent` returns for the row.

    Returns:
        The shape of *distance*, float64, whole numbers in [0, 2**exponent].
    """
    masses = exponentials(distance, inverse_temperature)
    masses *= 2.0**exponent
    return np.rint(masses, out=masses)


def library_masses(
    distance: Distances,
    inverse_temperature: float,
    exponent: int = 35,
    *,
    out: FloatArray | None = None,
    scratch: FloatArray | None = None,
) -> FloatArray:
    """Returns what :func:`fixed_point_masses` returns, by NumPy's exponential function.

    That gives the same whole number unless the value lies in the middle between two of them; only
    there is the mass computed by its definition.

    Args:
        distance: Shape ``(N,)``, as for :func:`fixed_point_masses`.
        inverse_temperature: 1 / T, positive.
        exponent: As for :func:`fixed_point_masses`.
        out: Receives the result. Shape ``(N,)``.
        scratch: Working memory. Shape ``(N,)``, float64.
    """
    scaled = np.multiply(distance, inverse_temperature, out=scratch, dtype=np.float64)
    # Far below, exp() is slow.
    np.maximum(scaled, MASSLESS, out=scaled)
    np.exp(scaled, out=scaled)
    scaled *= 2.0**exponent
    masses: FloatArray = np.rint(scaled, out=out)
    scaled -= masses
    np.abs(scaled, out=scaled)
    nearest = 0.5 - LIBRARY_ERROR * (2.0**exponent + 0.5)
    if scaled.max(initial=0.0) >= nearest:
        near = np.flatnonzero(scaled >= nearest)
        doubtful = near[scaled[near] + LIBRARY_ERROR * (masses[near] + 0.5) >= 0.5]
        if doubtful.size:
            masses[doubtful] = fixed_point_masses(distance[doubtful], inverse_temperature, exponent)
    return masses


def ceil_product(factor: float, total: int) -> int:
    """Returns ceil(factor * total), computed in whole numbers.

    Args:
        factor: In [0, 1]; taken as the exact rational number that it is.
        total: Not negative.
    """
    numerator, denominator = float(factor).as_integer_ratio()
    return -(-numerator * total // denominator)


def ceil_products(factors: FloatArray, totals: MassArray) -> MassArray:
    """Returns :func:`ceil_product` of each pair. Shapes ``(B,)``; *totals* and result int64."""
    pairs = zip(factors.tolist(), totals.tolist(), strict=True)
    return np.array([ceil_product(factor, total) for factor, total in pairs], dtype=np.int64)
