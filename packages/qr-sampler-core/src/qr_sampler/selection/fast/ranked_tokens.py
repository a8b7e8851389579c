# SPDX-License-Identifier: Apache-2.0
"""A ranking whose tokens have been sorted and whose masses are known exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qr_sampler.arrays import Distances, FloatArray, IndexArray, Logits
from qr_sampler.selection.filters import Cut, Ranking, typical_range
from qr_sampler.selection.masses import ceil_product, library_masses

__all__ = ["RankedTokens", "rank_order"]


def rank_order(logits: Logits, token_ids: IndexArray) -> IndexArray:
    """Returns the permutation that sorts tokens by descending logit, ties by ascending id."""
    return np.lexsort((token_ids, -logits))


class RankedTokens(Ranking):
    """The leading tokens of a row, possibly all of them.

    Args:
        token_ids: Shape ``(N,)``, the N leading tokens in rank order.
        distance: Shape ``(N,)``, float32, their distances to the maximum.
        inverse_temperature: 1 / T.
        exponent: The mass of the most probable token is 2**exponent.
        vocab_size: Number of tokens V of the row.
        masses: Their masses, if they have been computed.
        total: Returns the cut after the last rank of the row, whose masses may be bounds.
    """

    def __init__(
        self,
        token_ids: IndexArray,
        distance: Distances,
        inverse_temperature: float,
        exponent: int,
        *,
        vocab_size: int,
        masses: FloatArray | None = None,
        total: Callable[[], Cut] | None = None,
    ) -> None:
        self.token_ids = token_ids
        self.distance = distance
        if masses is None:
            masses = library_masses(distance, inverse_temperature, exponent)
        self.masses = masses
        self.cumulative: FloatArray = masses.cumsum()
        self._inverse = inverse_temperature
        self._vocab_size = vocab_size
        self._total = total

    def everything(self) -> Cut | None:
        """Returns the cut after the last rank, if known."""
        return self.after_rank(self._vocab_size)

    def after_rank(self, rank: int) -> Cut | None:
        """Returns the cut after *rank* tokens, if that many are sorted."""
        rank = min(rank, self._vocab_size)
        if rank <= len(self.token_ids):
            return self._cut(rank)
        if rank < self._vocab_size or self._total is None:
            return None
        return self._total()

    def within_distance(self, distance: float) -> Cut | None:
        """Returns the cut after the last token at most *distance* below the maximum."""
        farthest = np.float64(distance)
        return self._leading(int(np.searchsorted(-self.distance, farthest, side="right")))

    def with_mass(self, mass: int) -> Cut | None:
        """Returns the cut after the last token whose mass is at least *mass*."""
        return self._leading(int(np.searchsorted(-self.masses, -mass, side="right")))

    def reaching(self, fraction: float, start: Cut, stop: Cut) -> Cut | None:
        """Returns the shortest prefix that reaches *fraction* of the mass between two cuts."""
        base = start.lowest
        lowest = base + ceil_product(fraction, stop.lowest - base)
        rank = int(self.cumulative.searchsorted(lowest, side="left"))
        if rank == len(self.token_ids):
            return None
        cut = self.after_rank(rank + 1)
        if cut is None or stop.highest == stop.lowest:
            return cut
        highest = base + ceil_product(fraction, stop.highest - base)
        return cut if cut.lowest >= highest else None

    def typical_cuts(self, stop: Cut, typical_p: float) -> tuple[Cut, Cut] | None:
        """Returns both ends of what typical-p keeps before *stop*, if that much is sorted."""
        rank = stop.rank
        if rank > len(self.token_ids):
            return None
        exponents = self.distance[:rank].astype(np.float64) * self._inverse
        ranks = typical_range(exponents, self.masses[:rank], typical_p)
        first, last = (self._cut(rank) for rank in ranks)
        return first, last

    def token(self, rank: int) -> tuple[int, int]:
        """Returns id and mass of the token at *rank*."""
        return int(self.token_ids[rank]), int(self.masses[rank])

    def _leading(self, count: int) -> Cut | None:
        """Returns the cut after *count* tokens, unless the next one is out of sight."""
        in_sight = count < len(self.token_ids) or count == self._vocab_size
        return self.after_rank(count) if in_sight else None

    def _cut(self, rank: int) -> Cut:
        mass = int(self.cumulative[rank - 1]) if rank else 0
        return Cut(rank, mass, mass)
