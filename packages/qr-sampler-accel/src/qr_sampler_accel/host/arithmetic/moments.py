# SPDX-License-Identifier: Apache-2.0
"""Entropy and weight of a row as compiled float32 loops, within the bounds of its errors.

The bounds are those of :mod:`qr_sampler.selection.fast.passes`.
"""

from __future__ import annotations

import math

import numpy as np

from qr_sampler.selection.fast.passes import EXP_ERROR, LOWEST, PRODUCT_ERROR, SUM_ERROR, TERMS
from qr_sampler.selection.masses import LOG2_E
from qr_sampler.temperature.base import STATISTICS_STEP
from qr_sampler_accel.host.arithmetic.compiler import contracted
from qr_sampler_accel.host.arithmetic.masses import LANES

__all__ = [
    "fill_powers",
    "float32_moments",
    "is_settled",
    "moment_memory",
    "row_sums",
    "row_weight",
]

LOWEST_POWER = np.float32(-125.0)
"""2 to this power is still a normal float32, and far too small to matter. As an exponent of e it is
above LOWEST, for which the bounds hold."""
SMALLEST_DISTANCE = np.float32(-1e-30)
"""Smaller ones count as 0, which no sum notices: arithmetic on denormal numbers is slow."""
ZERO = np.float32(0.0)
HALF = np.float32(0.5)
ONE = np.float32(1.0)
C1, C2, C3, C4, C5 = (
    np.float32(coefficient)
    for coefficient in (
        0.6931470233198073,
        0.2402223256902932,
        0.055506827475538326,
        0.009671961952114378,
        0.001327837904765476,
    )
)
"""2**f = 1 + C1 f + C2 f**2 + ... for |f| <= 1/2; no polynomial of this form has a smaller largest
relative error than theirs, 2**-23.2, to which float32 adds less than as much."""

PLAIN_ERROR = 1.01 * (EXP_ERROR + SUM_ERROR)
LOWEST_EXPONENT = float(LOWEST)
BASE_TWO = np.float32(LOG2_E)


@contracted
def moment_memory():  # type: ignore[no-untyped-def]
    """Returns the working memory of the loops: z, e, e as integers, k, and the sums."""
    z, e = np.empty(LANES, dtype=np.float32), np.empty(LANES, dtype=np.float32)
    k, lanes = np.empty(LANES, dtype=np.int32), np.empty((3, LANES), dtype=np.float32)
    return z, e, e.view(np.int32), k, lanes


@contracted
def fill_powers(logits, maximum, scale, z, e, bits, k):  # type: ignore[no-untyped-def]
    """Writes z = (logit - maximum) * scale and e = 2**z of up to LANES tokens, to within 2**-21.

    2**z = 2**k 2**f with k the integer nearest to z. Adding k to the exponent field of a float32,
    which begins at bit 23, multiplies by 2**k; *bits* is *e* seen as integers.
    """
    for j in range(logits.size):
        d = logits[j] - maximum
        v = max((d if d < SMALLEST_DISTANCE else ZERO) * scale, LOWEST_POWER)
        n = np.floor(v + HALF)
        f = v - n
        z[j] = v
        e[j] = ((((C5 * f + C4) * f + C3) * f + C2) * f + C1) * f + ONE
        k[j] = np.int32(n)
    for j in range(logits.size):
        bits[j] += k[j] << 23


@contracted
def row_sums(logits, maximum, z, e, bits, k, lanes):  # type: ignore[no-untyped-def]
    """Returns the sums of e, e z and e z**2 over a row, with e = 2**z at temperature 1."""
    weight = first = second = 0.0
    for start in range(0, logits.size, LANES * TERMS):
        lanes[:] = 0.0
        stop = min(start + LANES * TERMS, logits.size)
        for block in range(start, stop, LANES):
            piece = logits[block : min(block + LANES, stop)]
            fill_powers(piece, maximum, BASE_TWO, z, e, bits, k)
            for j in range(piece.size):
                product = e[j] * z[j]
                lanes[0, j] += e[j]
                lanes[1, j] += product
                lanes[2, j] += product * z[j]
        for j in range(LANES):
            weight += lanes[0, j]
            first += lanes[1, j]
            second += lanes[2, j]
    return weight, first, second


@contracted
def row_weight(logits, maximum, inverse, z, e, bits, k, lanes):  # type: ignore[no-untyped-def]
    """Returns the sum of exp(d / T) over a row."""
    scale = np.float32(inverse * LOG2_E)
    weight = 0.0
    for start in range(0, logits.size, LANES * TERMS):
        lanes[0] = 0.0
        stop = min(start + LANES * TERMS, logits.size)
        for block in range(start, stop, LANES):
            piece = logits[block : min(block + LANES, stop)]
            fill_powers(piece, maximum, scale, z, e, bits, k)
            for j in range(piece.size):
                lanes[0, j] += e[j]
        for j in range(LANES):
            weight += lanes[0, j]
    return weight


@contracted
def is_settled(value, error):  # type: ignore[no-untyped-def]
    """Returns what :func:`qr_sampler.selection.statistics.is_settled` returns."""
    lower, upper = (value - error) / STATISTICS_STEP, (value + error) / STATISTICS_STEP
    return np.rint(lower) == np.rint(upper)


@contracted
def float32_moments(logits, maximum, count, memory):  # type: ignore[no-untyped-def]
    """Returns entropy, varentropy, weight, and whether the first *count* of them are settled.

    Formulas and bounds are those of :func:`qr_sampler.selection.fast.passes.measured_moments`.
    """
    weight, first, second = row_sums(logits, maximum, *memory)
    # z is the exponent of 2, d = z ln 2 that of e.
    mean, square = -first / LOG2_E / weight, second / LOG2_E**2 / weight
    entropy, varentropy = max(math.log(weight) + mean, 0.0), max(square - mean * mean, 0.0)
    if not count:
        return entropy, varentropy, weight, True
    weight_error = PLAIN_ERROR + PRODUCT_ERROR * mean
    first_error = mean * PLAIN_ERROR + PRODUCT_ERROR * square
    settled = is_settled(entropy, weight_error + first_error + mean * weight_error)
    if count > 1:
        second_error = square * (PLAIN_ERROR - PRODUCT_ERROR * LOWEST_EXPONENT)
        error = second_error + square * weight_error
        error += 2.0 * mean * (first_error + mean * weight_error)
        settled = settled and is_settled(varentropy, error)
    return entropy, varentropy, weight, settled
