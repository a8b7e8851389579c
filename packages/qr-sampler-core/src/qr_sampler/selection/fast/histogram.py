# SPDX-License-Identifier: Apache-2.0
"""A ranking of a whole row that sorts nothing but the bin in question.

The exact masses of the bins over the distance from the maximum say how much mass lies above any
bin. A question about a rank or a mass leads to one bin, or a few, whose tokens are sorted. It
answers every question but that of typical-p.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler.arrays import IndexArray, Logits, MassArray
from qr_sampler.selection.fast.bins import BINS, Bins, bin_of
from qr_sampler.selection.fast.ranked_tokens import RankedTokens, rank_order
from qr_sampler.selection.filters import Cut, Ranking
from qr_sampler.selection.masses import MASSLESS, ceil_product

__all__ = ["Histogram"]

NEAR: Final = 1e-4
"""Margin in nats, by far larger than the rounding of an exponent and smaller than a bin."""


class Section(NamedTuple):
    """Neighbouring bins, sorted, and what lies above them."""

    tokens: RankedTokens
    """Their tokens."""
    rank: int
    """Number of tokens above."""
    mass: int
    """Their mass."""

    def cut(self, count: int) -> Cut:
        """Returns the cut after the first *count* of its tokens."""
        mass = self.mass + (int(self.tokens.cumulative[count - 1]) if count else 0)
        return Cut(self.rank + count, mass, mass)


class Histogram(Ranking):
    """One row, binned by its exponents d / T.

    Args:
        logits: Shape ``(V,)``, float32.
        maximum: The largest of them, finite.
        inverse_temperature: 1 / T.
        exponent: The mass of the most probable token is 2**exponent.
        bins: Bins of rows of V tokens.
    """

    def __init__(
        self,
        logits: Logits,
        maximum: np.float32,
        inverse_temperature: float,
        exponent: int,
        bins: Bins,
    ) -> None:
        self._logits = logits
        self._maximum = maximum
        self._inverse = inverse_temperature
        self._exponent = exponent
        self._bins = bins
        totals = bins.totals(logits, maximum, inverse_temperature, exponent)
        self._mass_above = _above(totals.masses)
        self._rank_above = _above(totals.counts)
        self._place = (0, -1)
        self._section: Section | None = None

    def everything(self) -> Cut:
        """Returns the cut after the last rank."""
        mass = int(self._mass_above[BINS])
        return Cut(self._logits.size, mass, mass)

    def after_rank(self, rank: int) -> Cut:
        """Returns the cut after *rank* tokens."""
        if rank >= self._logits.size:
            return self.everything()
        section = self._section_at(int(self._rank_above[1:].searchsorted(rank, side="left")))
        return section.cut(rank - section.rank)

    def within_distance(self, distance: float) -> Cut:
        """Returns the cut after the last token at most *distance* below the maximum."""
        section = self._around(-distance * self._inverse)
        distances = -section.tokens.distance
        return section.cut(int(np.searchsorted(distances, np.float64(distance), side="right")))

    def with_mass(self, mass: int) -> Cut:
        """Returns the cut after the last token whose mass is at least *mass*."""
        # Masses are rounded, so half a unit less will do.
        section = self._around(math.log((mass - 0.5) / 2.0**self._exponent))
        return section.cut(int(np.searchsorted(-section.tokens.masses, -mass, side="right")))

    def reaching(self, fraction: float, start: Cut, stop: Cut) -> Cut:
        """Returns the shortest prefix that reaches *fraction* of the mass before *stop*.

        Args:
            fraction: In the open interval (0, 1).
            start: Nothing; this ranking offers no other ranges.
            stop: The end of the range.
        """
        goal = ceil_product(fraction, stop.lowest)
        section = self._section_at(int(self._mass_above[1:].searchsorted(goal, side="left")))
        inside = section.tokens.cumulative.searchsorted(goal - section.mass, side="left")
        return section.cut(int(inside) + 1)

    def typical_range(self, rank: int, typical_p: float) -> None:
        """Returns ``None``: typical-p depends on every token."""

    def token(self, rank: int) -> tuple[int, int]:
        """Returns id and mass of the token at *rank*, the last one of the cut just returned."""
        section = self._sections(*self._place)
        return section.tokens.token(rank - section.rank)

    def _around(self, exponent: float) -> Section:
        exponent = max(exponent, MASSLESS)
        return self._sections(bin_of(exponent + NEAR), bin_of(exponent - NEAR))

    def _section_at(self, index: int) -> Section:
        return self._sections(index, index)

    def _sections(self, first: int, last: int) -> Section:
        """Returns the bins from *first* to *last*, sorted; remembers the last answer."""
        if self._section is None or self._place != (first, last):
            ids = self._bins.tokens(self._logits, self._maximum, self._inverse, first, last)
            rank, mass = int(self._rank_above[first]), int(self._mass_above[first])
            self._place, self._section = (first, last), Section(self._sorted(ids), rank, mass)
        return self._section

    def _sorted(self, ids: IndexArray) -> RankedTokens:
        ids = ids[rank_order(self._logits[ids], ids)]
        # A difference too large for float32 becomes -inf, as for a masked token.
        with np.errstate(over="ignore"):
            distance = self._logits[ids] - self._maximum
        size = self._logits.size
        return RankedTokens(ids, distance, self._inverse, self._exponent, vocab_size=size)


def _above(values: NDArray[Any]) -> MassArray:
    """Returns the totals above each bin and, last, of all. Shape ``(BINS + 1,)``."""
    totals = np.zeros(BINS + 1, dtype=np.int64)
    np.cumsum(values, out=totals[1:], dtype=np.int64)
    return totals
