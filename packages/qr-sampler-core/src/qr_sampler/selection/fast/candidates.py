# SPDX-License-Identifier: Apache-2.0
"""From a ranking, however incomplete, to the token that u selects, or to the admission of doubt."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from qr_sampler.selection.filters import NOTHING, Cut, Filters, Ranking, truncate

__all__ = ["Candidates", "Choice", "RankingAt", "find_candidates"]

RankingAt = Callable[[float], Ranking]
"""Returns a ranking of one row for the given 1 / T."""


class Choice(NamedTuple):
    """The token of one row and where it stood."""

    token_id: int
    """The token."""
    rank: int
    """Its rank, 0 for the most probable one."""
    probability: float
    """Its share of the mass that truncation kept."""
    candidates: int
    """How many tokens truncation kept."""


class Candidates(NamedTuple):
    """The tokens of one row that survive truncation."""

    ranking: Ranking
    """The row in rank order at the temperature of the draw."""
    start: Cut
    """What comes before them, with an exact mass."""
    stop: Cut
    """The last of them and what comes before it."""

    def choose(self, u: float) -> Choice | None:
        """Returns the first token whose cumulative mass reaches u times the total.

        Args:
            u: In the open interval (0, 1).

        Returns:
            ``None`` if the ranking cannot tell.
        """
        start, stop = self.start, self.stop
        cut = self.ranking.reaching(u, start, stop)
        if cut is None:
            return None
        token_id, mass = self.ranking.token(cut.rank - 1)
        total = 0.5 * (stop.lowest + stop.highest) - start.lowest
        return Choice(token_id, cut.rank - 1, mass / total, stop.rank - start.rank)


def find_candidates(
    ranking_at: RankingAt, inverse: float, filters: Filters, deviation: float, exponent: int
) -> Candidates | None:
    """Returns the tokens that survive truncation, or ``None`` if the ranking cannot tell.

    Args:
        ranking_at: Makes the ranking at a temperature.
        inverse: 1 / T of the draw.
        filters: How the row is truncated.
        deviation: Standard deviation of the row's logits; used by top-n-sigma only.
        exponent: The mass of the most probable token is 2**exponent.
    """
    ranking = ranking_at(1.0 if filters.truncate_first else inverse)
    stop = truncate(ranking, filters, deviation, exponent)
    if filters.truncate_first and inverse != 1.0 and stop is not None:
        ranking = ranking_at(inverse)
        stop = ranking.after_rank(stop.rank)
    if stop is None or filters.typical_p == 1.0:
        return None if stop is None else Candidates(ranking, NOTHING, stop)
    cuts = ranking.typical_cuts(stop, filters.typical_p)
    return None if cuts is None else Candidates(ranking, *cuts)
