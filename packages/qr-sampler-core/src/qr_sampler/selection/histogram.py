# SPDX-License-Identifier: Apache-2.0
"""A ranking of a whole row that sorts nothing but the bin in question.

A histogram over the distance from the maximum says how much mass lies in the bins above any bin. A
question about a rank or a mass leads to one bin, or a few; their tokens are sorted and their masses
are computed exactly.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler._typing import FloatArray, IndexArray, Logits
from qr_sampler.selection.filters import Cut, Ranking
from qr_sampler.selection.masses import MASSLESS
from qr_sampler.selection.passes import Exp
from qr_sampler.selection.ranked_tokens import RankedTokens, rank_order

__all__ = ["BINS", "BINS_PER_NAT", "HistogramBuffers", "HistogramRanking", "Section", "above"]

BINS: Final = 4096
"""The last of them holds all tokens without a mass."""

BINS_PER_NAT: Final = (BINS - 2) / -MASSLESS
"""A little less than what would fill the last bin, for rounding."""

NEAR: Final = 1e-4
"""Margin in nats, by far larger than the rounding of an exponent and smaller than a bin."""


class HistogramBuffers:
    """The working memory of histograms, for one row at a time.

    Args:
        vocab_size: Number of tokens V.
        exp: Computes exponentials.
    """

    def __init__(self, vocab_size: int, exp: Exp) -> None:
        self.exp = exp
        self.distance = np.empty(vocab_size, dtype=np.float32)
        self.weights = np.empty(vocab_size, dtype=np.float32)
        self.masses = np.empty(vocab_size, dtype=np.float64)
        self.scratch = np.empty(vocab_size, dtype=np.float64)
        self.bins = np.empty(vocab_size, dtype=np.intp)
        self.wanted = np.empty(vocab_size, dtype=np.bool_)

    def fill(self, logits: Logits, maximum: np.float32, inverse_temperature: float) -> None:
        """Sorts every token of a row into its bin.

        Distances too far to have a mass are raised to the first that has none.
        """
        lowest = np.float32(MASSLESS / inverse_temperature)
        # A difference too large for float32 becomes -inf, as for a masked token.
        with np.errstate(over="ignore"):
            np.subtract(logits, maximum, out=self.distance)
        if self.distance.min() < lowest:
            np.maximum(self.distance, lowest, out=self.distance)
        # Truncation towards zero keeps the order: a smaller logit never gets a smaller bin.
        bins_per_distance = np.float32(-BINS_PER_NAT * inverse_temperature)
        np.multiply(self.distance, bins_per_distance, out=self.bins, casting="unsafe")


class Section(NamedTuple):
    """Neighbouring bins, sorted, and what lies above them."""

    tokens: RankedTokens
    """Their tokens."""
    rank: int
    """Number of tokens above."""
    lowest: int
    """Lower bound of the mass above."""
    highest: int
    """Upper bound of it."""

    def cut(self, count: int) -> Cut:
        """Returns the cut after the first *count* of its tokens."""
        inside = int(self.tokens.cumulative[count - 1]) if count else 0
        return Cut(self.rank + count, self.lowest + inside, self.highest + inside)


class HistogramRanking(Ranking):
    """One row, binned by its exponents d / T.

    Args:
        logits: Shape ``(V,)``, float32.
        maximum: The largest of them, finite.
        inverse_temperature: 1 / T.
        exponent: The mass of the most probable token is 2**exponent.
        buffers: Overwritten; the ranking is valid until the next one is made with them.
    """

    def __init__(
        self,
        logits: Logits,
        maximum: np.float32,
        inverse_temperature: float,
        exponent: int,
        buffers: HistogramBuffers,
    ) -> None:
        self._logits = logits
        self._maximum = maximum
        self._inverse = inverse_temperature
        self._exponent = exponent
        self._buffers = buffers
        self._place = (0, 0)
        self._section: Section | None = None
        buffers.fill(logits, maximum, inverse_temperature)
        self._add_up()

    @abstractmethod
    def _add_up(self) -> None:
        """Computes the mass of every bin."""

    @abstractmethod
    def bounds_above(self, index: int) -> tuple[int, int]:
        """Returns bounds of the mass of the first *index* bins."""

    def everything(self) -> Cut:
        """Returns the cut after the last rank."""
        return Cut(self._logits.size, *self.bounds_above(BINS))

    def after_rank(self, rank: int) -> Cut:
        """Returns the cut after *rank* tokens."""
        if rank == self._logits.size:
            return self.everything()
        index = int(np.searchsorted(np.cumsum(self.counts()), rank, side="left"))
        section = self.section(index, index)
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

    def typical_range(self, rank: int, typical_p: float) -> None:
        """Returns ``None``: typical-p depends on every token."""

    def token(self, rank: int) -> tuple[int, int]:
        """Returns id and mass of the token at *rank*, the last one of the cut just returned."""
        section = self.section(*self._place)
        return section.tokens.token(rank - section.rank)

    def counts(self) -> IndexArray:
        """Returns how many tokens each bin holds. Shape ``(BINS,)``."""
        return np.bincount(self._buffers.bins, minlength=BINS)

    def section(self, first: int, last: int) -> Section:
        """Returns the bins from *first* to *last*, sorted; remembers the last answer."""
        if self._section is None or self._place != (first, last):
            self._place, self._section = (first, last), self._sort(first, last)
        return self._section

    def _around(self, exponent: float) -> Section:
        exponent = max(exponent, MASSLESS)
        return self.section(_bin_of(exponent + NEAR), _bin_of(exponent - NEAR))

    def _sort(self, first: int, last: int) -> Section:
        wanted, bins = self._buffers.wanted, self._buffers.bins
        rank = int(np.count_nonzero(np.less(bins, first, out=wanted)))
        ids = self._tokens_in(first, last)
        ids = ids[rank_order(self._logits[ids], ids)]
        with np.errstate(over="ignore"):
            distance = self._logits[ids] - self._maximum
        size = self._logits.size
        tokens = RankedTokens(ids, distance, self._inverse, self._exponent, vocab_size=size)
        return Section(tokens, rank, *self.bounds_above(first))

    def _tokens_in(self, first: int, last: int) -> IndexArray:
        bins, wanted = self._buffers.bins, self._buffers.wanted
        if last == BINS - 1:
            return np.flatnonzero(np.greater_equal(bins, first, out=wanted))
        ids = [np.flatnonzero(np.equal(bins, k, out=wanted)) for k in range(first, last + 1)]
        return ids[0] if first == last else np.sort(np.concatenate(ids))


def above(values: NDArray[Any]) -> FloatArray:
    """Returns the totals above each bin and, last, of all. Shape ``(BINS + 1,)``."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _bin_of(exponent: float) -> int:
    return min(int(max(-exponent, 0.0) * BINS_PER_NAT), BINS - 1)
