# SPDX-License-Identifier: Apache-2.0
"""Fast float32 passes over a whole row, with proved bounds of their errors.

They never decide anything that lies within their bounds; what does is computed again, exactly.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple, Protocol

import numpy as np

from qr_sampler.arrays import Distances, FloatArray, Logits
from qr_sampler.selection.fast.bins import Bins, RowBins
from qr_sampler.selection.fast.energies import Energies, RowEnergies
from qr_sampler.selection.fast.head import Head, column_count, column_maxima, leading_tokens
from qr_sampler.selection.masses import MASSLESS, library_masses
from qr_sampler.selection.statistics import Moments, is_settled, logit_deviation, row_moments

__all__ = [
    "EXP_ERROR",
    "LOWEST",
    "NOTHING",
    "PRODUCT_ERROR",
    "SUM_ERROR",
    "TERMS",
    "MeasuredMoments",
    "RankingPasses",
    "RowPasses",
    "RowSums",
    "mass_bounds",
    "measured_moments",
    "weight_bounds",
]

EXP_ERROR: Final = 2.0**-21
"""Bound of the relative error of the float32 exponential function itself, 4 to 8 units in the last
place; that of NumPy and PyTorch stays below 3 units."""

PRODUCT_ERROR: Final = 2.0**-23
"""The exponent itself is a product of two rounded factors: off by this times its magnitude."""

TERMS: Final = 32
"""Terms of a sum in float32; the sums of so many are added up in float64."""

SUM_ERROR: Final = (TERMS + 6) * 2.0**-24
"""Bound of the relative error of such a sum, the terms being products of up to three numbers, two
of which may be off by PRODUCT_ERROR."""

LOWEST: Final = np.float32(-87.0)
"""exp() of it is still a normal float32, and far too small to matter."""

NOTHING: Final = np.float32(-np.inf)
"""The exponent of a token that is not there, at any temperature."""


class RowSums(NamedTuple):
    """Sums over a row at temperature 1."""

    weight: float
    """S, the sum of e = exp(d)."""
    first: float
    """A, the sum of e d."""
    second: float
    """Q, the sum of e d**2."""


class MeasuredMoments(NamedTuple):
    """The moments of a row at temperature 1."""

    moments: Moments
    """Close to the true ones."""
    entropy_error: float
    """Bound of the error of the entropy."""
    varentropy_error: float
    """Bound of the error of the varentropy."""
    weight: float
    """S, the sum of exp(d), as accurate as :func:`weight_bounds` says."""

    def settles(self, count: int) -> bool:
        """Whether rounding the first *count* moments gives what the true ones would."""
        errors = (self.entropy_error, self.varentropy_error)[:count]
        return all(
            is_settled(value, error) for value, error in zip(self.moments, errors, strict=False)
        )


class RankingPasses(Protocol):
    """What the two rankings of a row ask of it."""

    @property
    def bins(self) -> Bins:
        """Bins of rows of V tokens."""

    @property
    def energies(self) -> Energies:
        """Energies of rows of V tokens."""

    def weight(self, logits: Logits, maximum: np.float32, inverse_temperature: float) -> float:
        """Returns the sum of exp(d / T) over one row, as accurate as :func:`weight_bounds` says.

        Args:
            logits: Shape ``(V,)``, float32.
            maximum: The largest of them, finite.
            inverse_temperature: 1 / T.
        """

    def masses(self, distance: Distances, inverse_temperature: float, exponent: int) -> FloatArray:
        """Returns what :func:`fixed_point_masses` returns."""


class RowPasses(RankingPasses):
    """What takes time with a row, for one row at a time, and its working memory.

    A distance that is too large for float32 becomes ``-inf``, as for a masked token. That NumPy
    warns of it in :meth:`head` and :meth:`moments`, the caller prevents: once for all rows, since
    that takes time, too.

    A subclass may do the same in another way. Whatever keeps to the bounds of this module gives the
    same tokens; :meth:`masses` is exact.

    Args:
        vocab_size: Number of tokens V.
    """

    def __init__(self, vocab_size: int) -> None:
        padded = -(-vocab_size // TERMS) * TERMS
        self.vocab_size = vocab_size
        self._row_bins: Bins | None = None
        self._energies: Energies | None = None
        self._float64: FloatArray | None = None
        self._maxima = np.empty(column_count(vocab_size), dtype=np.float32)
        self._distance = np.empty(padded, dtype=np.float32)
        self._weights = np.empty(padded, dtype=np.float32)
        self._lanes = np.empty((3, padded // TERMS), dtype=np.float32)
        self._totals = np.empty((3, padded // TERMS), dtype=np.float64)

    @property
    def bins(self) -> Bins:
        """Bins of rows of V tokens, made when they are first needed."""
        if self._row_bins is None:
            self._row_bins = RowBins(self.vocab_size)
        return self._row_bins

    @property
    def energies(self) -> Energies:
        """Energies of rows of V tokens, made when they are first needed."""
        if self._energies is None:
            self._energies = RowEnergies(self.vocab_size)
        return self._energies

    def maximum(self, logits: Logits) -> np.float32:
        """Returns the largest logit of one row, NaN if there is one. :meth:`head` is next."""
        maximum: np.float32 = column_maxima(logits, self._maxima).max()
        return maximum

    def head(self, logits: Logits, maximum: np.float32) -> Head:
        """Returns the leading tokens of the row whose maximum was asked for last."""
        return leading_tokens(logits, self._maxima, maximum)

    def masses(self, distance: Distances, inverse_temperature: float, exponent: int) -> FloatArray:
        """Returns what :func:`fixed_point_masses` returns."""
        return library_masses(distance, inverse_temperature, exponent)

    def moments(self, logits: Logits, maximum: np.float32) -> MeasuredMoments:
        """Returns entropy and varentropy of one row.

        Args:
            logits: Shape ``(V,)``, float32.
            maximum: The largest of them, finite.
        """
        distance = self._distances(logits, maximum, LOWEST)
        sums = self._sums(distance)
        if math.isnan(sums.first):
            # 0 * -inf is not a number.
            sums = self._sums(np.maximum(distance, LOWEST, out=distance))
        return measured_moments(sums)

    def settled_moments(self, logits: Logits, maximum: np.float32) -> Moments:
        """Returns what :func:`row_moments` returns, or what rounds to the same."""
        with np.errstate(over="ignore"):
            distance = np.subtract(logits, maximum, out=self._distance[: logits.size])
        return row_moments(distance, self._scratch)

    def deviation(self, logits: Logits) -> float:
        """Returns what :func:`logit_deviation` returns."""
        return logit_deviation(logits, self._scratch)

    def weight(self, logits: Logits, maximum: np.float32, inverse_temperature: float) -> float:
        """Returns the sum of exp(d / T) over one row. Arguments as in :class:`RankingPasses`."""
        with np.errstate(over="ignore"):
            exponents = self._distances(logits, maximum, NOTHING)
            if inverse_temperature != 1.0:
                exponents *= np.float32(inverse_temperature)
        return self._weight(exponents)

    @property
    def _scratch(self) -> FloatArray:
        if self._float64 is None:
            self._float64 = np.empty((2, self.vocab_size))
        return self._float64

    def _distances(self, logits: Logits, maximum: np.float32, filler: np.float32) -> Distances:
        """Returns the distances of a row, filled up with *filler* to a multiple of the lanes."""
        np.subtract(logits, maximum, out=self._distance[: logits.size])
        self._distance[logits.size :] = filler
        return self._distance

    def _sums(self, distance: Distances) -> RowSums:
        np.exp(distance, out=self._weights)
        e, d = self._rows(self._weights), self._rows(distance)
        np.add.reduce(e, axis=0, out=self._lanes[0])
        np.einsum("ij,ij->j", e, d, out=self._lanes[1])
        np.einsum("ij,ij,ij->j", e, d, d, out=self._lanes[2])
        return RowSums(*self._added_up(3).tolist())

    def _weight(self, exponents: Distances) -> float:
        """Returns the sum of exp(y); the exponents y are overwritten."""
        np.exp(exponents, out=exponents)
        np.add.reduce(self._rows(exponents), axis=0, out=self._lanes[0])
        return float(self._added_up(1)[0])

    @staticmethod
    def _rows(values: Distances) -> Distances:
        return values.reshape(TERMS, -1)

    def _added_up(self, count: int) -> FloatArray:
        """Returns the sums of the first *count* rows of lanes, added in float64."""
        totals = self._totals[:count]
        np.copyto(totals, self._lanes[:count])
        sums: FloatArray = np.add.reduce(totals, axis=1)
        return sums


def weight_bounds(weight: float) -> tuple[float, float]:
    """Returns bounds of the sum of exp(d / T) over a row, from its float32 *weight*."""
    # A weight below exp(MASSLESS) is no mass at all, so no lower exponent needs to be exact.
    error = 1.01 * (EXP_ERROR + SUM_ERROR + PRODUCT_ERROR * -MASSLESS) * weight
    return weight - error, weight + error


def mass_bounds(weights: tuple[float, float], vocab_size: int, exponent: int) -> tuple[int, int]:
    """Returns bounds of the total mass of tokens whose weights exp(d / T) have a bounded sum.

    Args:
        weights: Lower and upper bound of that sum.
        vocab_size: Number of tokens at most; the mass of each is rounded by up to 1/2.
        exponent: The mass of the most probable token is 2**exponent.
    """
    lowest, highest = (weight * 2.0**exponent for weight in weights)
    slack = 0.5 * vocab_size
    return max(math.floor(lowest - slack), 0), math.ceil(highest + slack)


def measured_moments(sums: RowSums) -> MeasuredMoments:
    """Returns the moments with what the errors of the sums make of them, to first order."""
    moments = Moments.from_sums(*sums)
    mean, square = -sums.first / sums.weight, sums.second / sums.weight
    plain = 1.01 * (EXP_ERROR + SUM_ERROR)
    # An error in the exponent d of PRODUCT_ERROR |d| weighs each sum with one more power of |d|.
    weight = plain + PRODUCT_ERROR * mean
    first = mean * plain + PRODUCT_ERROR * square
    second = square * (plain - PRODUCT_ERROR * float(LOWEST))
    entropy_error = weight + first + mean * weight
    varentropy_error = second + square * weight + 2.0 * mean * (first + mean * weight)
    return MeasuredMoments(moments, entropy_error, varentropy_error, sums.weight)
