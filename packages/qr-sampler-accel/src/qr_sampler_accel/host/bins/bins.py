# SPDX-License-Identifier: Apache-2.0
"""The bins of a row as compiled loops, for logits in the memory of the host."""

from __future__ import annotations

import numpy as np

from qr_sampler.arrays import Logits
from qr_sampler.selection.fast.bins import BINS, BinnedRow, Bins, BinTotals, bin_scale
from qr_sampler.selection.fast.descent import Goal, Held, Landing
from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.arithmetic.masses import (
    LANES,
    TABLES,
    fill_masses,
    mass_memory,
    whole_sum,
)
from qr_sampler_accel.host.bins.descent import Descent

__all__ = [
    "CompiledBins",
    "fill_totals",
    "near_maximum",
    "token_at",
]


@compiled
def _fill_bins(logits, maximum, lowest, factor, distance, bins):  # type: ignore[no-untyped-def]
    """Writes the distances and the bins of up to LANES tokens; returns the smallest bin."""
    least = np.int32(BINS)
    for j in range(logits.size):
        d = max(logits[j] - maximum, lowest)
        distance[j] = d
        bins[j] = np.int32(d * factor)
        least = min(least, bins[j])
    return least


@compiled
def fill_totals(  # type: ignore[no-untyped-def]
    logits, maximum, inverse, unit, scale, distance, bins, mass_memory, totals, counts
):
    """Adds up mass and number of the tokens of each bin; those of the last bin have no mass.

    Adding to one place over and over is slow, since each addition waits for the one before. Tokens
    therefore take turns at TABLES tables, whose sums end up in the first. No branch depends on a
    single token, which would go wrong too often where half of them have no mass.
    """
    totals[:] = 0.0
    counts[:] = 0
    last = totals.shape[1] - 1
    for start in range(0, logits.size, LANES):
        piece = logits[start : start + LANES]
        if _fill_bins(piece, maximum, scale[0], scale[1], distance, bins) == last:
            counts[0, last] += piece.size
            continue
        fill_masses(distance, piece.size, inverse, unit, *mass_memory)
        masses = mass_memory[2]
        for j in range(piece.size):
            totals[j % TABLES, bins[j]] += masses[j]
            counts[j % TABLES, bins[j]] += 1
    for table in range(1, TABLES):
        for index in range(last + 1):
            totals[0, index] += totals[table, index]
            counts[0, index] += counts[table, index]


@compiled
def near_maximum(logits, row, least_mass, most_distance, distance, mass_memory):  # type: ignore[no-untyped-def]
    """Returns number and mass of the tokens that are near enough and have enough of a mass."""
    maximum, inverse, unit = row
    count, total = 0, 0.0
    for start in range(0, logits.size, LANES):
        piece = logits[start : start + LANES]
        for j in range(piece.size):
            distance[j] = piece[j] - maximum
        fill_masses(distance, piece.size, inverse, unit, *mass_memory)
        masses = mass_memory[2]
        for j in range(piece.size):
            kept = (np.float64(-distance[j]) <= most_distance) & (masses[j] >= least_mass)
            count += kept
            masses[j] = masses[j] if kept else 0.0
        total += whole_sum(masses, piece.size)
    return count, total


@compiled
def token_at(logits, logit, place):  # type: ignore[no-untyped-def]
    """Returns the token that comes after *place* others among those with the given logit."""
    for start in range(0, logits.size, LANES):
        piece = logits[start : start + LANES]
        hits = 0
        for j in range(piece.size):
            hits += piece[j] == logit
        if hits > place:
            for j in range(piece.size):
                if piece[j] == logit:
                    if not place:
                        return start + j
                    place -= 1
        place -= hits
    return -1


class CompiledBins(Bins):
    """Bins in compiled loops. Rows must have *vocab_size* tokens: the loops check no index.

    Args:
        vocab_size: Number of tokens V.
    """

    def __init__(self, vocab_size: int) -> None:
        self._memory = (np.empty(LANES, dtype=np.float32), np.empty(LANES, dtype=np.int32))
        self._mass_memory = mass_memory()
        self._totals = np.empty((TABLES, BINS), dtype=np.float64)
        self._counts = np.empty((TABLES, BINS), dtype=np.int32)
        self._vocab_size = vocab_size
        self._descent: Descent | None = None

    def totals(
        self, logits: Logits, maximum: np.float32, inverse_temperature: float, exponent: int
    ) -> BinTotals:
        """Returns what the bins hold. Arguments as in :class:`Bins`."""
        fill_totals(
            logits,
            maximum,
            inverse_temperature,
            2.0**exponent,
            tuple(bin_scale(inverse_temperature)),
            *self._memory,
            self._mass_memory,
            self._totals,
            self._counts,
        )
        return BinTotals(self._totals[0].astype(np.int64), self._counts[0].astype(np.intp))

    def leading(self, row: BinnedRow, distance: float, mass: int) -> Held:
        """Returns number and mass of some tokens. Arguments as in :class:`Bins`."""
        numbers = (row.maximum, row.inverse_temperature, 2.0**row.exponent)
        memory = (self._memory[0], self._mass_memory)
        count, total = near_maximum(row.logits, numbers, float(mass), distance, *memory)
        return Held(int(count), int(total))

    def land(self, row: BinnedRow, first: int, last: int, held: Held, goal: Goal) -> Landing:
        """Returns where the bins reach *goal*. Arguments as in :class:`Bins`."""
        if self._descent is None:
            self._descent = Descent(self._vocab_size)
        return self._descent.land(row, first, last, held, goal)

    def token_at(self, logits: Logits, logit: np.float32, place: int) -> int:
        """Returns one of the tokens with the given logit. Arguments as in :class:`Bins`."""
        return int(token_at(logits, logit, place))
