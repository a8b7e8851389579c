# SPDX-License-Identifier: Apache-2.0
"""The exact law of a sum of independent fair bits, evaluated anywhere without a table."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np

from qr_sampler.arrays import FloatArray, IndexArray

__all__ = ["LAW_ERROR", "FairBitsLaw", "law_of_bits", "law_of_bytes"]

LAW_ERROR: Final = 1e-14
"""Bound of the absolute error of every probability of a :class:`FairBitsLaw`."""

# A sum of independent fair bits is strictly sub-Gaussian: P(|S - mean| >= x * sd) is at most
# 2 * exp(-x**2 / 2), since cosh(y) <= exp(y**2 / 2). At 9.5 this is 5e-20.
_WINDOW_DEVIATIONS: Final = 9.5
# The coefficients are below 1e-20 from 9.6 / sd on, which is the 29th multiple of the lowest
# frequency. Narrow laws of few bytes have side lobes; their windows have no more terms than this.
_MAX_TERMS: Final = 4_096
_NEGLIGIBLE: Final = 1e-20


class FairBitsLaw:
    """The law of S = sum of ``w * bit`` over *count* fair bits of each weight w.

    Bytes have the weights 1, 2, 4 ... 128, single bits the weight 1. The characteristic function of
    S minus its mean is the product of ``cos(w * t / 2)**count``, real and explicit. Summed over the
    M frequencies ``2 pi k / M`` it gives the law exactly, folded to a period of M (the discrete
    Fourier inversion). With c the distance from the mean, a[k] the function at the k-th frequency
    and t[k] that frequency::

        P(S = c)                  = (1 + 2 sum a[k] cos(t[k] c)) / M
        P(S < c) + P(S = c) / 2   = 1/2 + (c + sum a[k] cot(t[k] / 2) sin(t[k] c)) / M

    the second line being the trapezoidal sum of the first from 0 to c. M covers 9.5 standard
    deviations on each side, or the whole support if that is smaller, which leaves some thirty terms
    that are not negligible, for any number of bits. Phases are reduced in integers. The absolute
    error stays below :data:`LAW_ERROR`.

    Args:
        weights: Positive weights.
        count: Number of bits of each weight.
    """

    def __init__(self, weights: tuple[int, ...], count: int) -> None:
        self.total = count * sum(weights)
        self.deviation = math.sqrt(count * sum(weight**2 for weight in weights) / 4.0)
        window = min(self.total + 1, math.ceil(2.0 * _WINDOW_DEVIATIONS * self.deviation))
        # Odd, so that frequencies come in pairs.
        self._period = window | 1
        order = np.arange(1, min(self._period // 2, _MAX_TERMS) + 1)
        frequency = 2.0 * np.pi / self._period * order.astype(np.float64)
        coefficient = _characteristic(frequency, weights, count)
        kept = np.abs(coefficient) > _NEGLIGIBLE * order
        self._order = order[kept]
        self._mass = 2.0 / self._period * coefficient[kept]
        self._below = coefficient[kept] / np.tan(frequency[kept] / 2.0) / self._period

    def evaluate(self, values: IndexArray) -> tuple[FloatArray, FloatArray]:
        """Returns P(S < s) + P(S = s) / 2 and P(S = s) for every s.

        Args:
            values: Shape ``(B,)``, from 0 to :attr:`total`.
        """
        edge = self._period - 1
        doubled = np.clip(2 * values.astype(np.int64) - self.total, -edge, edge)
        turns = np.multiply.outer(doubled, self._order) % (2 * self._period)
        phase = np.pi / self._period * turns
        # Not a matrix product, whose order of addition depends on the number of rows.
        below = 0.5 + (0.5 / self._period * doubled + (np.sin(phase) * self._below).sum(axis=1))
        mass = 1.0 / self._period + (np.cos(phase) * self._mass).sum(axis=1)
        return below, np.maximum(mass, 0.0)


def _characteristic(frequency: FloatArray, weights: tuple[int, ...], count: int) -> FloatArray:
    """Returns the product of ``cos(w t / 2)**count``.

    ``log(cos x) = log1p(-sin(x)**2) / 2`` keeps its relative accuracy near x = 0, where a power of
    a rounded cosine would lose *count* times its last digit.
    """
    half = np.multiply.outer(frequency / 2.0, np.array(weights, dtype=np.float64))
    squared = np.minimum(np.sin(half) ** 2, 1.0)
    # A vanishing cosine makes the product vanish: exp(-inf) = 0.
    with np.errstate(divide="ignore"):
        logarithm = 0.5 * count * np.log1p(-squared).sum(axis=1)
    sign = np.prod(np.sign(np.cos(half)), axis=1)
    product: FloatArray = np.exp(logarithm) * (sign if count % 2 else 1.0)
    return product


@lru_cache(maxsize=64)
def law_of_bytes(count: int) -> FairBitsLaw:
    """Returns the law of the sum of *count* uniform bytes."""
    return FairBitsLaw((1, 2, 4, 8, 16, 32, 64, 128), count)


@lru_cache(maxsize=64)
def law_of_bits(count: int) -> FairBitsLaw:
    """Returns the law of the number of ones among *count* fair bits."""
    return FairBitsLaw((1,), count)
