# SPDX-License-Identifier: Apache-2.0
"""The tokens of a row by their energy, from which typical-p follows without sorting.

The energy of a token is its exponent as a whole number, see
:data:`~qr_sampler.selection.filters.ENERGY_STEPS`. Typical-p keeps the tokens whose energies are
nearest to the mean. Two histograms over the distance from the mean, the second one inside a bin of
the first, say how far it reaches; on one side the last energy may be kept in part.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import numpy as np

from qr_sampler.arrays import FloatArray, IndexArray, Logits
from qr_sampler.selection.fast.bins import BinnedRow
from qr_sampler.selection.filters import ENERGY_STEPS, Cut
from qr_sampler.selection.masses import MASSLESS

__all__ = [
    "COARSE_SHIFT",
    "WEIGHT_SHIFT",
    "WIDTH",
    "Edge",
    "Energies",
    "EnergyTotals",
    "Reach",
    "RowEnergies",
    "energies_of",
    "typical_reach",
]

WEIGHT_SHIFT: Final = 10
"""Bits of a mass that the mean leaves out: 25 bits of mass, 19 bits of energy and 2**18 tokens fill
62 of 63 bits."""

COARSE_SHIFT: Final = 9
"""Bits of a distance from the mean that the first histogram leaves out."""

WIDTH: Final = 1024
"""Bins of a histogram. The largest distance, 26 * 2**14, is below WIDTH << COARSE_SHIFT."""


class Edge(NamedTuple):
    """The least probable logit that other filters have left, of which they may leave a part."""

    logit: np.float32
    """Tokens with a larger one are all left."""
    ties: int
    """How many tokens with this logit are."""


class EnergyTotals(NamedTuple):
    """A histogram over the distance of an energy from the mean.

    The first line is for energies below the mean, the second for the others.
    """

    masses: FloatArray
    """Shape ``(2, WIDTH)``."""
    counts: IndexArray
    """Shape ``(2, WIDTH)``, numbers of tokens."""

    def cut(self, side: int, first: int = 0, stop: int | None = None) -> Cut:
        """Returns number and mass of the tokens in the bins before *stop*, on one side."""
        mass = int(self.masses[side, first:stop].sum())
        return Cut(int(self.counts[side, first:stop].sum()), mass, mass)

    def leading(self, count: int) -> EnergyTotals:
        """Returns the first *count* bins."""
        return EnergyTotals(self.masses[:, :count], self.counts[:, :count])

    def place_of(self, goal: int) -> tuple[int, int]:
        """Returns the bin in which the mass of both sides reaches *goal*, and what it lacks."""
        running = self.masses.sum(axis=0).cumsum()
        place = int(running.searchsorted(goal, side="left"))
        return place, goal - (int(running[place - 1]) if place else 0)


class Reach(NamedTuple):
    """How far typical-p reaches: one end of the range is known, and a mass that leads to the other.

    The running total counts from the first rank of the row.
    """

    start: Cut
    """The cut before all energies of which something is kept."""
    stop: Cut
    """The cut after all energies that are kept and nearer to the mean than the last one."""
    goal: int
    """The running total at a token: the first one that is kept if *below*, else the last one."""
    below: bool
    """Whether that token is on the more probable side of the mean."""


class Energies(Protocol):
    """Measures the energies of rows of V tokens, one row at a time, in memory of its own."""

    def mean(self, row: BinnedRow, edge: Edge | None) -> int:
        """Returns the mean energy of what is left, weighed by mass and rounded down.

        Args:
            row: The row.
            edge: What is left of the row; ``None`` for all of it.
        """

    def totals(self, mean: int, shift: int, first: int) -> EnergyTotals:
        """Returns a histogram of the row that :meth:`mean` was asked of; valid until the next call.

        Bin i holds the tokens whose energy is (first + i) << shift or more, and less than one bin
        further, from the mean; tokens outside of all bins are left out.

        Args:
            mean: The mean energy.
            shift: Width of a bin, as a power of two.
            first: What is subtracted from the number of each bin.
        """


def energies_of(row: BinnedRow, logits: Logits) -> IndexArray:
    """Returns the energies of some *logits* of a row. Shapes ``(N,)``."""
    exponents = row.distances(logits).astype(np.float64) * row.inverse_temperature
    return np.rint(np.maximum(exponents, MASSLESS) * -ENERGY_STEPS).astype(np.int64)


class RowEnergies(Energies):
    """Energies in NumPy.

    Args:
        vocab_size: Number of tokens V.
    """

    def __init__(self, vocab_size: int) -> None:
        del vocab_size
        self._energy: IndexArray = np.empty(0, dtype=np.int64)
        self._masses: FloatArray = np.empty(0)

    def mean(self, row: BinnedRow, edge: Edge | None) -> int:
        """Returns the mean energy of what is left. Arguments as in :class:`Energies`."""
        kept = row.logits if edge is None else left_by(row.logits, edge)
        self._energy, self._masses = energies_of(row, kept), row.masses(kept)
        weights = self._masses.astype(np.int64) >> WEIGHT_SHIFT
        return int((weights * self._energy).sum()) // int(weights.sum())

    def totals(self, mean: int, shift: int, first: int) -> EnergyTotals:
        """Returns a histogram. Arguments as in :class:`Energies`."""
        offset = self._energy - mean
        place = (np.abs(offset) >> shift) - first
        inside = (place >= 0) & (place < WIDTH)
        place += WIDTH * (offset >= 0)
        place, masses = place[inside], self._masses[inside]
        counts = np.bincount(place, minlength=2 * WIDTH).reshape(2, WIDTH)
        totals = np.bincount(place, weights=masses, minlength=2 * WIDTH).reshape(2, WIDTH)
        return EnergyTotals(totals.astype(np.float64, copy=False), counts)


def left_by(logits: Logits, edge: Edge) -> Logits:
    """Returns the logits that other filters have left, in no particular order."""
    return np.concatenate([logits[logits > edge.logit], np.full(edge.ties, edge.logit)])


def typical_reach(energies: Energies, row: BinnedRow, edge: Edge | None, goal: int) -> Reach:
    """Returns how far typical-p reaches.

    Args:
        energies: Measures rows of V tokens.
        row: The row.
        edge: What other filters have left of it; ``None`` for all of it.
        goal: The mass to keep, from 1 to that of what is left.
    """
    mean = energies.mean(row, edge)
    coarse = energies.totals(mean, COARSE_SHIFT, 0)
    near, goal = coarse.place_of(goal)
    fine = energies.totals(mean, 0, near << COARSE_SHIFT).leading(1 << COARSE_SHIFT)
    place, goal = fine.place_of(goal)
    start = _sum(coarse.cut(0, near + 1), fine.cut(0, place + 1))
    stop = _sum(coarse.cut(0), coarse.cut(1, 0, near), fine.cut(1, 0, place))
    lower = int(fine.masses[0, place])
    # Of two tokens equally far from the mean, the more probable one comes first.
    if goal <= lower:
        return Reach(start, stop, start.lowest + lower - goal + 1, below=True)
    return Reach(start, stop, stop.lowest + goal - lower, below=False)


def _sum(*cuts: Cut) -> Cut:
    return Cut(*map(sum, zip(*cuts, strict=True)))
