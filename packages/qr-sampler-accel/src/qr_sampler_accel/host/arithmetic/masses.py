# SPDX-License-Identifier: Apache-2.0
"""Fixed-point masses as compiled loops, in the very operations that define them.

Nothing here may be contracted or reordered: the masses are those of
:func:`~qr_sampler.selection.masses.fixed_point_masses`, to the last unit.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qr_sampler.arrays import Distances, FloatArray
from qr_sampler.selection.masses import EXPONENT_FLOOR, LN2_HIGH, LN2_LOW, LOG2_E, ROUNDER, TAYLOR
from qr_sampler_accel.host.arithmetic.compiler import compiled, summing

__all__ = [
    "LANES",
    "TABLES",
    "MassMemory",
    "compiled_masses",
    "fill_exponentials",
    "fill_masses",
    "mass_memory",
    "whole_sum",
]

LANES: Final = 256
"""Tokens that are worked on at a time."""

TABLES: Final = 4
"""Sums per bin of a histogram. Adding to one place over and over is slow, since each addition waits
for the one before; tokens therefore take turns."""

MassMemory: TypeAlias = tuple[FloatArray, NDArray[np.int64], FloatArray, NDArray[np.int64]]
"""What :func:`mass_memory` returns: numbers and their bits, twice."""

T11, T10, T9, T8, T7, T6, T5, T4, T3, T2, T1, T0 = TAYLOR


@compiled
def fill_exponentials(distance, count, inverse, sums, sum_bits, result, bits):  # type: ignore[no-untyped-def]
    """Writes exp(d / T) of the first *count* tokens of *distance*, LANES at most.

    *sum_bits* and *bits* are *sums* and *result* seen as integers.
    """
    for j in range(count):
        y = max(np.float64(distance[j]) * inverse, EXPONENT_FLOOR)
        s = y * LOG2_E + ROUNDER
        k = s - ROUNDER
        r = y - k * LN2_HIGH
        r = r - k * LN2_LOW
        p = ((((r * T11 + T10) * r + T9) * r + T8) * r + T7) * r + T6
        sums[j] = s
        result[j] = (((((p * r + T5) * r + T4) * r + T3) * r + T2) * r + T1) * r + T0
    for j in range(count):
        bits[j] += sum_bits[j] << 52


@compiled
def fill_masses(distance, count, inverse, unit, sums, sum_bits, masses, bits):  # type: ignore[no-untyped-def]
    """Writes the masses of the first *count* tokens of *distance*; *unit* is the largest mass."""
    fill_exponentials(distance, count, inverse, sums, sum_bits, masses, bits)
    for j in range(count):
        masses[j] = np.rint(masses[j] * unit)


@summing
def whole_sum(values, count):  # type: ignore[no-untyped-def]
    """Returns the sum of the first *count* values, which are whole numbers."""
    total = 0.0
    for j in range(count):
        total += values[j]
    return total


@compiled
def _all_masses(distance, inverse, unit, result, sums, sum_bits, masses, bits):  # type: ignore[no-untyped-def]
    for start in range(0, distance.size, LANES):
        piece = distance[start : start + LANES]
        fill_masses(piece, piece.size, inverse, unit, sums, sum_bits, masses, bits)
        for j in range(piece.size):
            result[start + j] = masses[j]


@compiled
def mass_memory():  # type: ignore[no-untyped-def]
    """Returns the working memory of :func:`fill_masses`."""
    sums, masses = np.empty(LANES, dtype=np.float64), np.empty(LANES, dtype=np.float64)
    return sums, sums.view(np.int64), masses, masses.view(np.int64)


def compiled_masses(
    distance: Distances, inverse_temperature: float, exponent: int, memory: MassMemory
) -> FloatArray:
    """Returns what ``fixed_point_masses`` returns.

    Args:
        distance: Shape ``(N,)``.
        inverse_temperature: 1 / T.
        exponent: The mass of the most probable token is 2**exponent.
        memory: What :func:`mass_memory` has returned.
    """
    result = np.empty(distance.size, dtype=np.float64)
    _all_masses(distance, inverse_temperature, 2.0**exponent, result, *memory)
    return result
