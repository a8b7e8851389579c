# SPDX-License-Identifier: Apache-2.0
"""The passes over a row as compiled loops, for logits in the memory of the host.

vLLM depends on Numba, which compiles these loops once per process. One of them replaces half a
dozen NumPy operations, each of which would read and write the whole row.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from qr_sampler._typing import Distances, FloatArray, Logits
from qr_sampler.selection.head import HEAD_COLUMNS, Head, head_threshold, ranked_head
from qr_sampler.selection.masses import EXPONENT_FLOOR, LN2_HIGH, LN2_LOW, LOG2_E, ROUNDER, TAYLOR
from qr_sampler.selection.passes import (
    LOWEST,
    MeasuredMoments,
    RowPasses,
    RowSums,
    measured_moments,
)

__all__ = ["CompiledPasses"]

LANES: Final = 128
"""Sums that run side by side, so that the processor adds several with one instruction."""

BLOCKS: Final = 16
"""Terms that each of them adds in float32 before they are added up in float64."""

# Arguments are the logits, their maximum and 1 / T; further ones are working memory.
compiled: Any = numba.njit(nogil=True, error_model="numpy")

LOG2_E_32 = np.float32(LOG2_E)
HALF = np.float32(0.5)
# ln 2 in two parts, the first short enough for an exact product with a small integer.
LN2_HIGH_32 = np.float32(0.693359375)
LN2_LOW_32 = np.float32(-2.12194440e-4)
C6, C5, C4, C3 = (np.float32(1.0 / divisor) for divisor in (720.0, 120.0, 24.0, 6.0))
ONE = np.float32(1.0)


@compiled
def _exponentials(logits, maximum, inverse, y, e, powers, k):  # type: ignore[no-untyped-def]
    """Writes y = d / T and e = exp(y) of up to LANES tokens, to a relative error of 2**-21.

    exp(y) = 2**k exp(r) with Taylor's polynomial of degree 6 for |r| <= ln(2)/2, whose remainder is
    below 2**-22. Adding k to the exponent field of a float32, which begins at bit 23, multiplies by
    2**k; *powers* is *e* seen as integers.
    """
    for j in range(logits.size):
        v = max((logits[j] - maximum) * inverse, LOWEST)
        n = np.floor(v * LOG2_E_32 + HALF)
        r = v - n * LN2_HIGH_32 - n * LN2_LOW_32
        p = ((((C6 * r + C5) * r + C4) * r + C3) * r + HALF) * r + ONE
        y[j] = v
        e[j] = p * r + ONE
        k[j] = np.int32(n)
    for j in range(logits.size):
        powers[j] += k[j] << 23


@compiled
def _sums(logits, maximum, inverse, y, e, powers, k, lanes):  # type: ignore[no-untyped-def]
    """Returns the sums of e, e y and e y**2 over a row."""
    weight = first = second = 0.0
    for start in range(0, logits.size, LANES * BLOCKS):
        lanes[:] = 0.0
        stop = min(start + LANES * BLOCKS, logits.size)
        for block in range(start, stop, LANES):
            piece = logits[block : min(block + LANES, stop)]
            _exponentials(piece, maximum, inverse, y, e, powers, k)
            for j in range(piece.size):
                lanes[0, j] += e[j]
                lanes[1, j] += e[j] * y[j]
                lanes[2, j] += e[j] * y[j] * y[j]
        for j in range(LANES):
            weight += lanes[0, j]
            first += lanes[1, j]
            second += lanes[2, j]
    return weight, first, second


@compiled
def _weight(logits, maximum, inverse, y, e, powers, k, lanes):  # type: ignore[no-untyped-def]
    """Returns the sum of e over a row."""
    weight = 0.0
    for start in range(0, logits.size, LANES * BLOCKS):
        lanes[0] = 0.0
        stop = min(start + LANES * BLOCKS, logits.size)
        for block in range(start, stop, LANES):
            piece = logits[block : min(block + LANES, stop)]
            _exponentials(piece, maximum, inverse, y, e, powers, k)
            for j in range(piece.size):
                lanes[0, j] += e[j]
        for j in range(LANES):
            weight += lanes[0, j]
    return weight


@compiled
def _head(logits, maxima, threshold, ids):  # type: ignore[no-untyped-def]
    """Writes the ids of the tokens at least as large as *threshold* and returns their number.

    -1 if they are more than fit in.
    """
    width, count = maxima.size, 0
    for column in range(width):
        if maxima[column] >= threshold:
            for token in range(column, logits.size, width):
                if logits[token] >= threshold:
                    if count == ids.size:
                        return -1
                    ids[count] = token
                    count += 1
    return count


@compiled
def _masses(distance, inverse, scale, masses, powers):  # type: ignore[no-untyped-def]
    """Writes the masses of tokens, in the same operations as ``masses.exponentials``."""
    for j in range(distance.size):
        y = max(np.float64(distance[j]) * inverse, EXPONENT_FLOOR)
        k = (y * LOG2_E + ROUNDER) - ROUNDER
        r = y - k * LN2_HIGH
        r = r - k * LN2_LOW
        p = r * TAYLOR[0] + TAYLOR[1]
        for degree in range(2, len(TAYLOR)):
            p = p * r + TAYLOR[degree]
        masses[j] = p
        powers[j] += np.int64(k) << 52
        masses[j] = np.rint(masses[j] * scale)


class CompiledPasses(RowPasses):
    """Does what its base class does, in compiled loops.

    The first call of each method waits for the compiler, for a second or so.

    Args:
        vocab_size: Number of tokens V.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size)
        floats = np.empty((2, LANES), dtype=np.float32)
        # y, e, e as integers, k, and the sums.
        self._memory = (
            floats[0],
            floats[1],
            floats[1].view(np.int32),
            np.empty(LANES, dtype=np.int32),
            np.empty((3, LANES), dtype=np.float32),
        )
        self._ids = np.empty(8 * HEAD_COLUMNS, dtype=np.intp)

    def head(self, logits: Logits) -> Head:
        """Returns the leading tokens of the row whose maximum was asked for last."""
        if self._maxima.size <= HEAD_COLUMNS:
            return super().head(logits)
        threshold = head_threshold(self._maxima, HEAD_COLUMNS)
        count = _head(logits, self._maxima, threshold, self._ids)
        return ranked_head(logits, self._ids[: max(count, 0)], self._maxima.max())

    def moments(self, logits: Logits, maximum: np.float32) -> MeasuredMoments:
        """Returns entropy and varentropy of one row."""
        return measured_moments(RowSums(*_sums(logits, maximum, np.float32(1.0), *self._memory)))

    def weight(self, logits: Logits, maximum: np.float32, inverse_temperature: float) -> float:
        """Returns the sum of exp(d / T) over one row."""
        inverse = np.float32(inverse_temperature)
        return float(_weight(logits, maximum, inverse, *self._memory))

    def masses(self, distance: Distances, inverse_temperature: float, exponent: int) -> FloatArray:
        """Returns what :func:`fixed_point_masses` returns."""
        masses = np.empty(distance.size, dtype=np.float64)
        powers = masses.view(np.int64)
        _masses(distance, inverse_temperature, 2.0**exponent, masses, powers)
        return masses
