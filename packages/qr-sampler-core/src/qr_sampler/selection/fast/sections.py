# SPDX-License-Identifier: Apache-2.0
"""A bin of a row in rank order: sorted where it holds few tokens, else never."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from qr_sampler.selection.fast.bins import BinnedRow, Bins, RowBins
from qr_sampler.selection.fast.descent import Goal, Held, Landing
from qr_sampler.selection.fast.ranked_tokens import RankedTokens, rank_order

__all__ = ["CrowdedSection", "Section", "SortedSection"]


class Section(Protocol):
    """The tokens of a bin, counted from the first of them in rank order."""

    def count_reaching(self, goal: int) -> int:
        """Returns how many tokens are needed for a mass of *goal*, which is from 1 to the total."""

    def mass_of(self, count: int) -> int:
        """Returns the mass of the first *count* tokens."""

    def token(self, count: int) -> tuple[int, int]:
        """Returns id and mass of the last of the first *count* tokens."""


class SortedSection(Section):
    """A section with few tokens.

    Args:
        row: The row.
        bins: Its bins.
        index: The bin.
    """

    def __init__(self, row: BinnedRow, bins: RowBins, index: int) -> None:
        ids = bins.tokens(row.logits, row.maximum, row.inverse_temperature, index, index)
        ids = ids[rank_order(row.logits[ids], ids)]
        self._tokens = RankedTokens(
            ids,
            row.distances(row.logits[ids]),
            row.inverse_temperature,
            row.exponent,
            vocab_size=row.logits.size,
        )

    def count_reaching(self, goal: int) -> int:
        """Returns how many tokens are needed for a mass of *goal*."""
        return int(self._tokens.cumulative.searchsorted(goal, side="left")) + 1

    def mass_of(self, count: int) -> int:
        """Returns the mass of the first *count* tokens."""
        return int(self._tokens.cumulative[count - 1]) if count else 0

    def token(self, count: int) -> tuple[int, int]:
        """Returns id and mass of the last of the first *count* tokens."""
        return self._tokens.token(count - 1)


class CrowdedSection(Section):
    """A section with many tokens, of which every answer takes a few passes.

    The last landing is remembered: a count is usually followed by its mass and its token.

    Args:
        row: The row.
        bins: Its bins.
        index: The bin.
        held: What it holds.
    """

    def __init__(self, row: BinnedRow, bins: Bins, index: int, held: Held) -> None:
        self._row, self._bins, self._index, self._held = row, bins, index, held
        self._landings: dict[int, Landing] = {}

    def count_reaching(self, goal: int) -> int:
        """Returns how many tokens are needed for a mass of *goal*."""
        landing = self._land(Goal(goal, counts=False))
        count = landing.rank - (landing.mass - goal) // self._mass_at(landing)
        self._landings = {count: landing}
        return count

    def mass_of(self, count: int) -> int:
        """Returns the mass of the first *count* tokens."""
        if not count:
            return 0
        landing = self._landing(count)
        return landing.mass + (count - landing.rank) * self._mass_at(landing)

    def token(self, count: int) -> tuple[int, int]:
        """Returns id and mass of the last of the first *count* tokens."""
        landing = self._landing(count)
        place = count - landing.rank - 1
        token_id = self._bins.token_at(self._row.logits, landing.logit, place)
        return token_id, self._mass_at(landing)

    def _landing(self, count: int) -> Landing:
        if count not in self._landings:
            self._landings = {count: self._land(Goal(count, counts=True))}
        return self._landings[count]

    def _land(self, goal: Goal) -> Landing:
        return self._bins.land(self._row, self._index, self._index, self._held, goal)

    def _mass_at(self, landing: Landing) -> int:
        return int(self._row.masses(np.array([landing.logit]))[0])
