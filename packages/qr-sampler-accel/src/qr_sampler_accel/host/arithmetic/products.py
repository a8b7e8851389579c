# SPDX-License-Identifier: Apache-2.0
"""Products of a fraction and a whole number, rounded up, in compiled whole-number arithmetic."""

from __future__ import annotations

import math

import numpy as np

from qr_sampler_accel.host.arithmetic.compiler import compiled

__all__ = ["ceil_product"]

U64 = np.uint64
LOW, HALF, WORD_BITS = U64(0xFFFFFFFF), U64(32), 64
SIGNIFICANT_BITS = 53
"""Of a float64."""


@compiled
def ceil_product(factor, total):  # type: ignore[no-untyped-def]
    """Returns what :func:`qr_sampler.selection.masses.ceil_product` returns.

    *factor* is m 2**-s with m of 53 bits, and *total* is at most 2**53. Their product m * total of
    up to 106 bits is formed of four products of 32-bit halves (Warren, Hacker's Delight, 8-2) and
    shifted right by s; a one among the bits that are lost rounds up.
    """
    if factor == 0.0 or total == 0:
        return np.int64(0)
    fraction, exponent = math.frexp(factor)
    m, shift = U64(fraction * 2.0**SIGNIFICANT_BITS), SIGNIFICANT_BITS - exponent
    n = U64(total)
    low = (m & LOW) * (n & LOW)
    first, second = (m >> HALF) * (n & LOW), (m & LOW) * (n >> HALF)
    middle = (low >> HALF) + (first & LOW) + (second & LOW)
    low = (low & LOW) | (middle << HALF)
    high = (m >> HALF) * (n >> HALF) + (first >> HALF) + (second >> HALF) + (middle >> HALF)
    if shift < WORD_BITS:
        # From 52, since a factor is at most 1.
        places = U64(shift)
        lost = low & ((U64(1) << places) - U64(1))
        whole = (high << U64(WORD_BITS - shift)) | (low >> places)
    elif shift == WORD_BITS:
        lost, whole = low, high
    elif shift < 2 * WORD_BITS:
        places = U64(shift - WORD_BITS)
        lost = low | (high & ((U64(1) << places) - U64(1)))
        whole = high >> places
    else:
        lost, whole = low | high, U64(0)
    return np.int64(whole) + np.int64(lost != U64(0))
