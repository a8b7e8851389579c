# SPDX-License-Identifier: Apache-2.0
"""A ranking of a whole row that answers every question without sorting the row.

The exact masses of the bins over the distance from the maximum say how much mass lies above any
bin. A question about a rank or a total leads to one bin.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler.arrays import MassArray
from qr_sampler.selection.fast.bins import BINS, BinnedRow, Bins, RowBins
from qr_sampler.selection.fast.descent import Held
from qr_sampler.selection.fast.energies import Edge, Energies, typical_reach
from qr_sampler.selection.fast.sections import CrowdedSection, Section, SortedSection
from qr_sampler.selection.filters import Cut, Ranking
from qr_sampler.selection.masses import ceil_product

__all__ = ["Histogram"]


class Place(NamedTuple):
    """A bin, and what lies above it."""

    section: Section
    """Its tokens."""
    rank: int
    """Number of tokens above."""
    mass: int
    """Their mass."""

    def cut(self, count: int) -> Cut:
        """Returns the cut after the first *count* of its tokens."""
        mass = self.mass + self.section.mass_of(count)
        return Cut(self.rank + count, mass, mass)


class Histogram(Ranking):
    """One row, binned by its exponents d / T.

    Args:
        row: The row.
        bins: Bins of rows of V tokens.
        energies: Energies of rows of V tokens.
    """

    def __init__(self, row: BinnedRow, bins: Bins, energies: Energies) -> None:
        self._row, self._bins, self._energies = row, bins, energies
        totals = bins.totals(row.logits, row.maximum, row.inverse_temperature, row.exponent)
        self._mass_above = _above(totals.masses)
        self._rank_above = _above(totals.counts)
        self._found = -1
        self._place: Place | None = None

    def everything(self) -> Cut:
        """Returns the cut after the last rank."""
        mass = int(self._mass_above[BINS])
        return Cut(self._row.logits.size, mass, mass)

    def after_rank(self, rank: int) -> Cut:
        """Returns the cut after *rank* tokens."""
        if rank >= self._row.logits.size:
            return self.everything()
        place = self._bin(int(self._rank_above[1:].searchsorted(rank, side="left")))
        return place.cut(rank - place.rank)

    def within_distance(self, distance: float) -> Cut:
        """Returns the cut after the last token at most *distance* below the maximum."""
        return self._leading(distance, 0)

    def with_mass(self, mass: int) -> Cut:
        """Returns the cut after the last token whose mass is at least *mass*."""
        return self._leading(math.inf, mass)

    def reaching(self, fraction: float, start: Cut, stop: Cut) -> Cut:
        """Returns the shortest prefix that reaches *fraction* of the mass between two cuts.

        Args:
            fraction: In the open interval (0, 1).
            start: Beginning of the range.
            stop: End of the range.
        """
        return self._with_total(start.lowest + ceil_product(fraction, stop.lowest - start.lowest))

    def typical_cuts(self, stop: Cut, typical_p: float) -> tuple[Cut, Cut]:
        """Returns both ends of what typical-p keeps of the tokens before *stop*."""
        goal = ceil_product(typical_p, stop.lowest)
        reach = typical_reach(self._energies, self._row, self._edge(stop), goal)
        cut = self._with_total(reach.goal)
        if not reach.below:
            return reach.start, cut
        mass = cut.lowest - self.token(cut.rank - 1)[1]
        return Cut(cut.rank - 1, mass, mass), reach.stop

    def token(self, rank: int) -> tuple[int, int]:
        """Returns id and mass of the token at *rank*, the last one of the cut just returned."""
        place = self._bin(self._found)
        return place.section.token(rank + 1 - place.rank)

    def _with_total(self, goal: int) -> Cut:
        """Returns the shortest prefix with a mass of at least *goal*."""
        place = self._bin(int(self._mass_above[1:].searchsorted(goal, side="left")))
        return place.cut(place.section.count_reaching(goal - place.mass))

    def _edge(self, stop: Cut) -> Edge | None:
        """Returns the logit at *stop*, and how many tokens before it have that logit."""
        logits = self._row.logits
        if stop.rank >= logits.size:
            return None
        self.after_rank(stop.rank)
        logit = logits[self.token(stop.rank - 1)[0]]
        return Edge(logit, stop.rank - int(np.count_nonzero(logits > logit)))

    def _leading(self, distance: float, mass: int) -> Cut:
        held = self._bins.leading(self._row, distance, mass)
        return Cut(held.tokens, held.mass, held.mass)

    def _bin(self, index: int) -> Place:
        """Returns one bin; remembers the last answer."""
        if self._place is None or self._found != index:
            rank, mass = int(self._rank_above[index]), int(self._mass_above[index])
            held = Held(
                int(self._rank_above[index + 1]) - rank, int(self._mass_above[index + 1]) - mass
            )
            self._found = index
            self._place = Place(self._section(index, held), rank, mass)
        return self._place

    def _section(self, index: int, held: Held) -> Section:
        bins = self._bins
        # Compiled bins land among few tokens in one pass, as finding them to be sorted takes.
        if isinstance(bins, RowBins) and held.tokens <= bins.most_sorted:
            return SortedSection(self._row, bins, index)
        return CrowdedSection(self._row, bins, index, held)


def _above(values: NDArray[Any]) -> MassArray:
    """Returns the totals above each bin and, last, of all. Shape ``(BINS + 1,)``."""
    totals = np.zeros(BINS + 1, dtype=np.int64)
    np.cumsum(values, out=totals[1:], dtype=np.int64)
    return totals
