# SPDX-License-Identifier: Apache-2.0
"""A ranking of a whole row that sorts nothing but the bin in question.

A histogram over the distance from the maximum says how much mass lies in the bins above any bin,
either exactly or, faster, within proved bounds. A question about a rank or a mass leads to one bin,
or two neighbouring ones; their tokens are sorted and their masses are computed exactly.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler._typing import FloatArray, IndexArray, Logits
from qr_sampler.selection.filters import Cut, Ranking
from qr_sampler.selection.masses import ceil_product, fixed_point_masses
from qr_sampler.selection.passes import EXP_ERROR, PRODUCT_ERROR, Exp
from qr_sampler.selection.ranked_tokens import RankedTokens, rank_order

__all__ = ["HistogramBuffers", "HistogramRanking"]

BINS: Final = 4096
LOWEST_EXPONENT: Final = np.float32(-26.0)
"""Everything below it has no mass and shares the last bin."""

BINS_PER_NAT: Final = np.float32((BINS - 1) / -LOWEST_EXPONENT)

NEAR: Final = 1e-4
"""Margin in nats, by far larger than the rounding of an exponent and smaller than a bin."""

PIECE: Final = 4096
"""Tokens whose exact masses are computed at a time."""


class HistogramBuffers:
    """The working memory of a ranking, for one row at a time.

    Args:
        vocab_size: Number of tokens V.
    """

    def __init__(self, vocab_size: int) -> None:
        self.distance = np.empty(vocab_size, dtype=np.float32)
        self.exponents = np.empty(vocab_size, dtype=np.float32)
        self.masses = np.empty(vocab_size, dtype=np.float64)
        self.bins = np.empty(vocab_size, dtype=np.intp)
        self.wanted = np.empty(vocab_size, dtype=np.bool_)


class _Section(NamedTuple):
    """Neighbouring bins, sorted, and what lies above them."""

    tokens: RankedTokens
    rank: int
    lowest: int
    highest: int

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
        exp: Computes approximate masses; ``None`` for exact ones, which takes several times longer.
    """

    def __init__(
        self,
        logits: Logits,
        maximum: np.float32,
        inverse_temperature: float,
        exponent: int,
        buffers: HistogramBuffers,
        exp: Exp | None,
    ) -> None:
        self._logits = logits
        self._inverse = inverse_temperature
        self._exponent = exponent
        self._buffers = buffers
        self._section: tuple[tuple[int, int], _Section] | None = None
        # A number too large for float32 becomes -inf and lands in the last bin, as it should.
        with np.errstate(over="ignore"):
            np.subtract(logits, maximum, out=buffers.distance)
            np.multiply(buffers.distance, np.float32(inverse_temperature), out=buffers.exponents)
        np.maximum(buffers.exponents, LOWEST_EXPONENT, out=buffers.exponents)
        # Truncation towards zero keeps the order: a smaller logit never gets a smaller bin.
        np.multiply(buffers.exponents, -BINS_PER_NAT, out=buffers.bins, casting="unsafe")
        self._fill_exactly() if exp is None else self._fill(exp)

    def _fill_exactly(self) -> None:
        buffers = self._buffers
        for start in range(0, self._logits.size, PIECE):
            piece = slice(start, start + PIECE)
            buffers.masses[piece] = fixed_point_masses(
                buffers.distance[piece], self._inverse, self._exponent
            )
        self._masses = _above(np.bincount(buffers.bins, weights=buffers.masses, minlength=BINS))
        self._errors = np.zeros(BINS + 1)
        self._slack = 0.0

    def _fill(self, exp: Exp) -> None:
        buffers = self._buffers
        exp(buffers.exponents, 1.0, buffers.exponents)
        np.multiply(buffers.exponents, 2.0**self._exponent, out=buffers.masses)
        masses = np.bincount(buffers.bins, weights=buffers.masses, minlength=BINS)
        self._masses = _above(masses)
        steepness = np.arange(1, BINS + 1) / float(BINS_PER_NAT)
        # The exponent has been multiplied twice, by 1 / T and by the scale of exp.
        errors = masses * (EXP_ERROR + 2.0 * PRODUCT_ERROR * steepness)
        self._errors = _above(1.01 * errors)
        # Each exact mass is rounded, by 1/2 at most.
        self._slack = 0.5 * self._logits.size + 1.0

    def everything(self) -> Cut:
        """Returns the cut after the last rank."""
        return Cut(self._logits.size, *self._bounds(0, BINS))

    def after_rank(self, rank: int) -> Cut | None:
        """Returns the cut after *rank* tokens."""
        if rank == self._logits.size:
            return self.everything()
        ranks = np.cumsum(np.bincount(self._buffers.bins, minlength=BINS))
        index = int(np.searchsorted(ranks, rank, side="left"))
        section = self._sorted(index, index)
        return section.cut(rank - section.rank)

    def within_distance(self, distance: float) -> Cut | None:
        """Returns the cut after the last token at most *distance* below the maximum."""
        exponent = -distance * self._inverse
        section = self._sorted(_bin_of(exponent + NEAR), _bin_of(exponent - NEAR))
        distances = -section.tokens.distance
        return section.cut(int(np.searchsorted(distances, np.float64(distance), side="right")))

    def with_mass(self, mass: int) -> Cut | None:
        """Returns the cut after the last token whose mass is at least *mass*."""
        # Masses are rounded, so half a unit less will do.
        exponent = math.log((mass - 0.5) / 2.0**self._exponent)
        section = self._sorted(_bin_of(exponent + NEAR), _bin_of(exponent - NEAR))
        return section.cut(int(np.searchsorted(-section.tokens.masses, -mass, side="right")))

    def reaching(self, fraction: float, start: Cut, stop: Cut) -> Cut | None:
        """Returns the shortest prefix that reaches *fraction* of the mass before *stop*.

        Args:
            fraction: In the open interval (0, 1).
            start: Nothing; this ranking has no other ranges to offer.
            stop: The end of the range.
        """
        errors = self._errors + self._slack
        first = np.searchsorted((self._masses + errors)[1:], fraction * stop.lowest)
        last = np.searchsorted((self._masses - errors)[1:], fraction * stop.highest)
        if last > first + 1 or last >= BINS:
            return None
        section = self._sorted(int(first), int(last))
        lowest, highest = self._goal(section, int(last) + 1, fraction, stop)
        earliest = int(np.searchsorted(section.tokens.cumulative, lowest, side="left"))
        latest = int(np.searchsorted(section.tokens.cumulative, highest, side="left"))
        unanimous = earliest == latest < len(section.tokens.token_ids)
        return section.cut(latest + 1) if unanimous else None

    def typical_range(self, rank: int, typical_p: float) -> None:
        """Returns ``None``: typical-p depends on every token."""

    def token(self, rank: int) -> tuple[int, int]:
        """Returns id and mass of the token at *rank*, which lies in the section last asked for."""
        assert self._section is not None
        _, section = self._section
        return section.tokens.token(rank - section.rank)

    def _goal(self, section: _Section, below: int, fraction: float, stop: Cut) -> tuple[int, int]:
        """Returns bounds of the mass that the section's tokens have to add.

        With A the mass above the section and D the mass from there to *stop*, it is
        f (A + D) - A = f D - (1 - f) A. In this form the errors of A and D do not add up twice.
        """
        if not self._slack:
            goal = ceil_product(fraction, stop.lowest) - section.lowest
            return goal, goal
        if stop.rank == self._logits.size:
            inside = int(section.tokens.cumulative[-1])
            lowest, highest = (inside + mass for mass in self._bounds(below, BINS))
        else:
            lowest, highest = stop.lowest - section.highest, stop.highest - section.lowest
        rest = 1.0 - fraction
        return (
            math.floor(fraction * lowest - rest * section.highest) - 1,
            math.ceil(fraction * highest - rest * section.lowest) + 1,
        )

    def _bounds(self, first: int, last: int) -> tuple[int, int]:
        """Returns bounds of the mass of the bins from *first* to the one before *last*."""
        mass = float(self._masses[last] - self._masses[first])
        error = float(self._errors[last] - self._errors[first]) + self._slack
        return max(math.floor(mass - error), 0), math.ceil(mass + error)

    def _sorted(self, first: int, last: int) -> _Section:
        """Returns the bins from *first* to *last*, sorted; remembers the last answer."""
        if self._section is None or self._section[0] != (first, last):
            self._section = (first, last), self._sort(first, last)
        return self._section[1]

    def _sort(self, first: int, last: int) -> _Section:
        ids = self._tokens_in(first, last)
        ids = ids[rank_order(self._logits[ids], ids)]
        tokens = RankedTokens(
            ids,
            self._buffers.distance[ids],
            self._inverse,
            self._exponent,
            vocab_size=self._logits.size,
        )
        above = np.less(self._buffers.bins, first, out=self._buffers.wanted)
        bounds = self._bounds(0, first) if first else (0, 0)
        return _Section(tokens, int(np.count_nonzero(above)), *bounds)

    def _tokens_in(self, first: int, last: int) -> IndexArray:
        bins, wanted = self._buffers.bins, self._buffers.wanted
        ids = np.flatnonzero(np.equal(bins, first, out=wanted))
        for index in range(first + 1, last + 1):
            ids = np.concatenate([ids, np.flatnonzero(np.equal(bins, index, out=wanted))])
        return ids


def _above(values: NDArray[Any]) -> FloatArray:
    """Returns the totals above each bin and, last, of all. Shape ``(BINS + 1,)``."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _bin_of(exponent: float) -> int:
    return int(min(max(-exponent, 0.0), float(-LOWEST_EXPONENT)) * float(BINS_PER_NAT))
