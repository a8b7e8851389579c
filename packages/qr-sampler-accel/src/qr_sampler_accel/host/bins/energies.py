# SPDX-License-Identifier: Apache-2.0
"""The energies of a row and histograms over them, which typical-p needs, as compiled loops."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler.selection.fast.bins import BinnedRow
from qr_sampler.selection.fast.energies import (
    WEIGHT_SHIFT,
    WIDTH,
    Edge,
    Energies,
    EnergyTotals,
)
from qr_sampler.selection.filters import ENERGY_STEPS
from qr_sampler.selection.masses import MASSLESS
from qr_sampler_accel.host.arithmetic.compiler import compiled, summing
from qr_sampler_accel.host.arithmetic.masses import LANES, TABLES, fill_masses, mass_memory

__all__ = ["CompiledEnergies"]

LEAST_WEIGHT: Final = 2.0**-WEIGHT_SHIFT
"""Mass times it, rounded down, is the weight of a token in the mean."""

NEVER = np.int32(-(2**30))
"""The energy of a token that is not left: too far from every mean."""


@compiled
def _drop(logits, edge, energies, masses):  # type: ignore[no-untyped-def]
    """Takes out the tokens that are not left; returns how many ties are to be kept further on."""
    logit, ties = edge
    for j in range(logits.size):
        if logits[j] <= logit:
            if logits[j] == logit and ties:
                ties -= 1
            else:
                energies[j] = NEVER
                masses[j] = 0.0
    return ties


@summing
def _weights(energies, masses):  # type: ignore[no-untyped-def]
    """Returns the sums that the mean energy of up to LANES tokens is made of.

    They are whole numbers below 2**(25 + 19 + 8).
    """
    total = weighed = 0.0
    for j in range(energies.size):
        weight = np.floor(masses[j] * LEAST_WEIGHT)
        total += weight
        weighed += weight * energies[j]
    return total, weighed


@compiled
def _measure(logits, edge, row, distance, mass_memory, energies, masses):  # type: ignore[no-untyped-def]
    """Writes energy and mass of every token; returns the sums that their mean is made of.

    *edge* is a logit, how many tokens with it are left, and whether anything is not.
    """
    maximum, inverse, unit = row
    logit, ties, cut = edge
    total, weighed = np.int64(0), np.int64(0)
    for start in range(0, logits.size, LANES):
        piece = logits[start : start + LANES]
        ours, theirs = energies[start : start + LANES], masses[start : start + LANES]
        for j in range(piece.size):
            distance[j] = piece[j] - maximum
            y = max(np.float64(distance[j]) * inverse, MASSLESS)
            ours[j] = np.int32(np.rint(y * -ENERGY_STEPS))
        fill_masses(distance, piece.size, inverse, unit, *mass_memory)
        for j in range(piece.size):
            theirs[j] = mass_memory[2][j]
        if cut:
            ties = _drop(piece, (logit, ties), ours, theirs)
        sums = _weights(ours, theirs)
        total, weighed = total + np.int64(sums[0]), weighed + np.int64(sums[1])
    return total, weighed


@compiled
def _places(energies, mean, shift, first, places):  # type: ignore[no-untyped-def]
    """Writes where in the tables up to LANES tokens belong.

    Each line has one place more than there are bins, for tokens outside of all of them: a branch
    would go wrong too often.
    """
    for j in range(energies.size):
        offset = energies[j] - mean
        place = (abs(offset) >> shift) - first
        inside = (place >= 0) & (place < WIDTH)
        line = np.int32(offset >= 0) + 2 * np.int32(j % TABLES)
        places[j] = line * np.int32(WIDTH + 1) + (place if inside else np.int32(WIDTH))


@compiled
def _totals(energies, masses, mean, shift, first, places, totals, counts):  # type: ignore[no-untyped-def]
    """Adds up masses and numbers by distance from the mean, on two sides, in TABLES tables."""
    totals[:] = 0.0
    counts[:] = 0
    for start in range(0, energies.size, LANES):
        piece = energies[start : start + LANES]
        _places(piece, mean, shift, first, places)
        for j in range(piece.size):
            totals[places[j]] += masses[start + j]
            counts[places[j]] += 1


class CompiledEnergies(Energies):
    """Energies in compiled loops. Rows must have *vocab_size* tokens: the loops check no index.

    Args:
        vocab_size: Number of tokens V.
    """

    def __init__(self, vocab_size: int) -> None:
        self._energies = np.empty(vocab_size, dtype=np.int32)
        self._masses = np.empty(vocab_size, dtype=np.float64)
        self._distance = np.empty(LANES, dtype=np.float32)
        self._mass_memory = mass_memory()
        self._places = np.empty(LANES, dtype=np.int32)
        self._totals = np.empty((TABLES, 2, WIDTH + 1), dtype=np.float64)
        self._counts = np.empty((TABLES, 2, WIDTH + 1), dtype=np.int32)

    def mean(self, row: BinnedRow, edge: Edge | None) -> int:
        """Returns the mean energy of what is left. Arguments as in :class:`Energies`."""
        total, weighed = _measure(
            row.logits,
            (np.float32(0.0), 0, False) if edge is None else (*edge, True),
            (row.maximum, row.inverse_temperature, 2.0**row.exponent),
            self._distance,
            self._mass_memory,
            self._energies,
            self._masses,
        )
        return int(weighed) // int(total)

    def totals(self, mean: int, shift: int, first: int) -> EnergyTotals:
        """Returns a histogram. Arguments as in :class:`Energies`."""
        totals, counts = self._totals, self._counts
        place = (np.int32(mean), np.int32(shift), np.int32(first))
        memory = (self._places, totals.reshape(-1), counts.reshape(-1))
        _totals(self._energies, self._masses, *place, *memory)
        return EnergyTotals(totals.sum(axis=0)[:, :WIDTH], counts.sum(axis=0)[:, :WIDTH])
