# SPDX-License-Identifier: Apache-2.0
"""One row of logits, and the two ways to rank it, of which the second answers every question."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qr_sampler.arrays import Logits
from qr_sampler.selection.fast.bins import BinnedRow
from qr_sampler.selection.fast.candidates import Candidates, Choice, RankingAt, find_candidates
from qr_sampler.selection.fast.head import Head
from qr_sampler.selection.fast.histogram import Histogram
from qr_sampler.selection.fast.passes import RankingPasses, mass_bounds, weight_bounds
from qr_sampler.selection.fast.ranked_tokens import RankedTokens
from qr_sampler.selection.filters import Cut, Filters, Ranking
from qr_sampler.selection.masses import unit_exponent

__all__ = ["FastRow"]


@dataclass(slots=True)
class FastRow:
    """What is known of one row.

    The ways to rank it are called with 1 / T; the ranking of the leading tokens admits it where it
    cannot tell.
    """

    logits: Logits
    """Shape ``(V,)``."""
    maximum: np.float32
    """The largest logit."""
    filters: Filters
    """How it is truncated."""
    passes: RankingPasses
    """What works on rows of V tokens."""
    head: Head
    """Its leading tokens."""
    deviation: float
    """Standard deviation of its logits; NaN where top-n-sigma is off."""
    weight: float
    """Sum of exp(d) over the row, its weight at temperature 1."""
    totals: dict[float, Cut] = field(default_factory=dict)
    """The cut after the last rank, by 1 / T, where it has been asked for."""

    @property
    def exponent(self) -> int:
        """The mass of the most probable token is 2**exponent."""
        return unit_exponent(self.logits.size)

    def candidates(self, inverse: float, ranking_at: RankingAt) -> Candidates | None:
        """Returns the tokens that survive truncation, or ``None`` if the ranking cannot tell."""
        return find_candidates(ranking_at, inverse, self.filters, self.deviation, self.exponent)

    def choose(self, inverse: float, ranking_at: RankingAt, u: float) -> Choice | None:
        """Returns the token that u selects, or ``None`` if the ranking cannot tell."""
        candidates = self.candidates(inverse, ranking_at)
        return None if candidates is None else candidates.choose(u)

    def total(self, inverse: float) -> Cut:
        """Returns the cut after the last rank, in one pass over the row unless that was made."""
        found = self.totals.get(inverse)
        if found is None:
            weight, size = self.weight, self.logits.size
            if inverse != 1.0:
                weight = self.passes.weight(self.logits, self.maximum, inverse)
            found = Cut(size, *mass_bounds(weight_bounds(weight), size, self.exponent))
            self.totals[inverse] = found
        return found

    def head_ranking(self, inverse: float) -> Ranking:
        """Returns the leading tokens in rank order, and the total of the row within bounds."""
        return RankedTokens(
            *self.head,
            inverse,
            self.exponent,
            vocab_size=self.logits.size,
            masses=self.passes.masses(self.head.distance, inverse, self.exponent),
            total=lambda: self.total(inverse),
        )

    def histogram_ranking(self, inverse: float) -> Ranking:
        """Returns the row in bins; valid until another row is sorted into bins."""
        row = BinnedRow(self.logits, self.maximum, inverse, self.exponent)
        return Histogram(row, self.passes.bins, self.passes.energies)
