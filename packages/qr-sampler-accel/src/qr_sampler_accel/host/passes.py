# SPDX-License-Identifier: Apache-2.0
"""The passes over a row as compiled loops, for logits in the memory of the host.

vLLM depends on Numba, which compiles these loops once per process. One of them replaces half a
dozen NumPy operations, each of which would read and write the whole row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

import numba
import numpy as np

from qr_sampler.arrays import Distances, FloatArray, Logits
from qr_sampler.selection.fast.bins import Bins
from qr_sampler.selection.fast.energies import Energies
from qr_sampler.selection.fast.head import GROUPS, HEAD_COLUMNS, LOWEST_LOGIT, Head
from qr_sampler.selection.fast.passes import (
    TERMS,
    MeasuredMoments,
    RowPasses,
    RowSums,
    measured_moments,
)
from qr_sampler.selection.masses import LOG2_E
from qr_sampler_accel.host.bins import CompiledBins
from qr_sampler_accel.host.energies import CompiledEnergies
from qr_sampler_accel.host.masses import LANES, MassMemory

__all__ = ["CompiledPasses"]

MOST_TOKENS: Final = 8 * HEAD_COLUMNS
"""Where ties make more leading tokens than these, none is returned."""

# A product and a sum may become one instruction: less rounding, within the same bounds.
contracted: Any = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})

LOWEST_POWER = np.float32(-125.0)
"""2 to this power is still a normal float32, and far too small to matter. As an exponent of e it is
above LOWEST of qr_sampler.selection.fast.passes, whose bounds hold for it."""
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


@contracted
def _powers(logits, maximum, scale, z, e, bits, k):  # type: ignore[no-untyped-def]
    """Writes z = (logit - maximum) * scale and e = 2**z of up to LANES tokens, to within 2**-21.

    2**z = 2**k 2**f with k the integer nearest to z. Adding k to the exponent field of a float32,
    which begins at bit 23, multiplies by 2**k; *bits* is *e* seen as integers.
    """
    for j in range(logits.size):
        v = max((logits[j] - maximum) * scale, LOWEST_POWER)
        n = np.floor(v + HALF)
        f = v - n
        z[j] = v
        e[j] = ((((C5 * f + C4) * f + C3) * f + C2) * f + C1) * f + ONE
        k[j] = np.int32(n)
    for j in range(logits.size):
        bits[j] += k[j] << 23


@contracted
def _sums(logits, maximum, scale, z, e, bits, k, lanes):  # type: ignore[no-untyped-def]
    """Returns the sums of e, e z and e z**2 over a row."""
    weight = first = second = 0.0
    for start in range(0, logits.size, LANES * TERMS):
        lanes[:] = 0.0
        stop = min(start + LANES * TERMS, logits.size)
        for block in range(start, stop, LANES):
            piece = logits[block : min(block + LANES, stop)]
            _powers(piece, maximum, scale, z, e, bits, k)
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
def _weight(logits, maximum, scale, z, e, bits, k, lanes):  # type: ignore[no-untyped-def]
    """Returns the sum of e over a row."""
    weight = 0.0
    for start in range(0, logits.size, LANES * TERMS):
        lanes[0] = 0.0
        stop = min(start + LANES * TERMS, logits.size)
        for block in range(start, stop, LANES):
            piece = logits[block : min(block + LANES, stop)]
            _powers(piece, maximum, scale, z, e, bits, k)
            for j in range(piece.size):
                lanes[0, j] += e[j]
        for j in range(LANES):
            weight += lanes[0, j]
    return weight


@contracted
def _threshold(maxima, groups):  # type: ignore[no-untyped-def]
    """Returns what ``head_threshold`` returns; *groups* is working memory."""
    for j in range(groups.size):
        groups[j] = maxima[j]
    for start in range(groups.size, maxima.size, groups.size):
        piece = maxima[start : start + groups.size]
        for j in range(piece.size):
            groups[j] = max(groups[j], piece[j])
    # Sorted by insertion, largest first: they are few.
    for i in range(1, groups.size):
        value, place = groups[i], i
        while place and groups[place - 1] < value:
            groups[place] = groups[place - 1]
            place -= 1
        groups[place] = value
    return max(groups[HEAD_COLUMNS - 1], LOWEST_LOGIT)


@contracted
def _leading(logits, maxima, threshold, ids):  # type: ignore[no-untyped-def]
    """Writes the ids of the tokens at least as large as *threshold* and returns their number.

    0 if they are more than fit in.
    """
    width, count = maxima.size, 0
    for column in range(width):
        if maxima[column] >= threshold:
            for token in range(column, logits.size, width):
                if logits[token] >= threshold:
                    if count == ids.size:
                        return 0
                    ids[count] = token
                    count += 1
    return count


@contracted
def _rank(logits, ids, distance, maximum):  # type: ignore[no-untyped-def]
    """Sorts *ids* by descending logit, ties by id, and writes the distances. For a few hundred."""
    for i in range(ids.size):
        token, logit = ids[i], logits[ids[i]]
        place = i
        while place and (
            logits[ids[place - 1]] < logit
            or (logits[ids[place - 1]] == logit and ids[place - 1] > token)
        ):
            ids[place] = ids[place - 1]
            place -= 1
        ids[place] = token
    for i in range(ids.size):
        distance[i] = logits[ids[i]] - maximum


@contracted
def _head(logits, maxima, groups, found, maximum):  # type: ignore[no-untyped-def]
    """Returns the ids of the leading tokens in rank order, and their distances."""
    count = _leading(logits, maxima, _threshold(maxima, groups), found)
    ids, distance = np.empty(count, dtype=np.intp), np.empty(count, dtype=np.float32)
    for i in range(count):
        ids[i] = found[i]
    _rank(logits, ids, distance, maximum)
    return ids, distance


class CompiledPasses(RowPasses):
    """Does what its base class does, in compiled loops.

    The first call of each method waits for the compiler, for a second or so.

    Args:
        vocab_size: Number of tokens V.
    """

    make_bins: ClassVar[Callable[[int], Bins]] = CompiledBins
    """Makes what sorts rows of V tokens into bins."""
    make_energies: ClassVar[Callable[[int], Energies]] = CompiledEnergies
    """Makes what measures the energies of rows of V tokens."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size)
        floats = np.empty((2, LANES), dtype=np.float32)
        # z, e, e as integers, k, and the sums.
        self._memory = (
            floats[0],
            floats[1],
            floats[1].view(np.int32),
            np.empty(LANES, dtype=np.int32),
            np.empty((3, LANES), dtype=np.float32),
        )
        self._groups = np.empty(GROUPS, dtype=np.float32)
        self._ids = np.empty(MOST_TOKENS, dtype=np.intp)
        self._mass_memory = MassMemory()

    def head(self, logits: Logits, maximum: np.float32) -> Head:
        """Returns the leading tokens of the row whose maximum was asked for last."""
        if self._maxima.size <= GROUPS:
            return super().head(logits, maximum)
        return Head(*_head(logits, self._maxima, self._groups, self._ids, maximum))

    def moments(self, logits: Logits, maximum: np.float32) -> MeasuredMoments:
        """Returns entropy and varentropy of one row."""
        weight, first, second = _sums(logits, maximum, np.float32(LOG2_E), *self._memory)
        # z is the exponent of 2, d = z ln 2 that of e.
        return measured_moments(RowSums(weight, first / LOG2_E, second / LOG2_E**2))

    def weight(self, logits: Logits, maximum: np.float32, inverse_temperature: float) -> float:
        """Returns the sum of exp(d / T) over one row."""
        scale = np.float32(inverse_temperature * LOG2_E)
        return float(_weight(logits, maximum, scale, *self._memory))

    def masses(self, distance: Distances, inverse_temperature: float, exponent: int) -> FloatArray:
        """Returns what :func:`fixed_point_masses` returns."""
        return self._mass_memory.masses(distance, inverse_temperature, exponent)
