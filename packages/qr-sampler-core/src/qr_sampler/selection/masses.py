# SPDX-License-Identifier: Apache-2.0
"""Probability masses in fixed point, so that every sum of them is exact."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Final

import numpy as np

from qr_sampler._typing import FloatArray, Logits, MassArray

__all__ = ["MASS_UNIT", "ceil_products", "fixed_point_masses"]

MASS_UNIT: Final = 2**35
"""Mass of the most probable token of a row: masses are integer multiples of 2**-35 of it."""

_GRID_OFFSET: Final = np.float32(2.0**-12)
"""Adding and subtracting it rounds a float32 in [0, 1] to a multiple of 2**-35: the spacing of
float32 just above 2**-12 is 2**-35, and larger numbers are coarser multiples of it."""


def fixed_point_masses(logits: Logits, temperature: FloatArray) -> MassArray:
    """Returns the unnormalised softmax masses of each row as integers.

    With m the row's maximum, e = exp((x - m) * (1 / T)) and w = (e + 2**-12) - 2**-12, rounded to
    float32 after each operation, the mass is w * 2**35. Sums of up to 2**18 masses do not exceed
    2**53, so integer and float64 sums agree exactly in any order. A token less than 2**-36 times as
    probable as the most probable one has mass 0, and so has a masked one.

    A float32 exponential is accurate to about one unit in the last place and not strictly
    monotone: of two logits that are neighbours in float32, the larger one may have a mass smaller
    by 2**-24 of itself. Ranks follow the logits.

    Args:
        logits: Shape ``(B, V)``, float32, with a finite maximum in every row.
        temperature: Shape ``(B,)``, positive.

    Returns:
        Shape ``(B, V)``, int64, in [0, 2**35]; the maximum of each row is 2**35.
    """
    inverse = np.reciprocal(temperature).astype(np.float32)
    # A difference too large for float32 becomes -inf, whose mass is 0 as it should be.
    with np.errstate(over="ignore", under="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True)
        weights = np.exp(shifted * inverse[:, np.newaxis])
    weights += _GRID_OFFSET
    weights -= _GRID_OFFSET
    masses: MassArray = (weights.astype(np.float64) * MASS_UNIT).astype(np.int64)
    return masses


def ceil_products(factors: FloatArray, totals: MassArray) -> MassArray:
    """Returns ceil(factor * total) for each row, without rounding of the product.

    Args:
        factors: Shape ``(B,)``, in [0, 1]; taken as the exact rational numbers that they are.
        totals: Shape ``(B,)``, int64.

    Returns:
        Shape ``(B,)``, int64.
    """
    pairs = zip(factors.tolist(), totals.tolist(), strict=True)
    return np.array([ceil(Fraction(factor) * total) for factor, total in pairs], dtype=np.int64)
