# SPDX-License-Identifier: Apache-2.0
"""One row of re-derived logits: its ranks, and where u may lie if the logits are a little wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from qr_sampler.arrays import FloatArray, IndexArray, MassArray

__all__ = ["INEXPLICABLE", "Bounds", "RowLaw", "smallest_error"]

INEXPLICABLE: Final = 64.0
"""Stands for an error of the logits that is beyond all measure."""

_SMALLEST: Final = 1e-6
"""Errors below it are not told apart; float32 rounds logits to as much."""

_BISECTIONS: Final = 14
"""They find an error to 0.1 % of itself."""


class Bounds(NamedTuple):
    """Where u may lie for a token to be selected."""

    low: float
    """Smallest u."""
    high: float
    """Largest u."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLaw:
    """The distribution that a token was drawn from, in the order of the selector."""

    below: FloatArray
    """Shape ``(V,)``, how far the logit of each rank lies below the largest one: ascending."""
    cumulative: MassArray
    """Shape ``(V + 1,)``, mass of the ranks before each rank at the temperature of the draw, and
    of all."""
    start: int
    """First rank that truncation keeps."""
    stop: int
    """One more than the last."""
    temperature: float
    """Of the draw."""
    window: float = 0.0
    """By how much the logits of the first and the last kept rank can change per unit of the logits'
    error; 0 unless typical-p, which keeps no prefix of the ranks, is on."""

    def within(self, distance: float) -> int:
        """Returns the number of tokens at most *distance* below the largest logit."""
        return int(np.searchsorted(self.below, distance, side="right"))

    def nearer(self, distance: float) -> int:
        """Returns the number of tokens less than *distance* below the largest logit."""
        return int(np.searchsorted(self.below, distance, side="left"))

    def starts(self, error: float) -> IndexArray:
        """Returns the ranks that may be the first one that typical-p keeps."""
        return np.arange(*self._near(self.start, error))

    def stops(self, error: float) -> tuple[int, int]:
        """Returns the smallest and the largest rank that may follow the last that it keeps."""
        first, after = self._near(self.stop - 1, error)
        return first + 1, after

    def _near(self, rank: int, error: float) -> tuple[int, int]:
        if not error:
            return rank, rank + 1
        reach, own = self.window * error, float(self.below[rank])
        # Any error may decide whether one more token is needed to reach the mass, far as it may be.
        first, after = min(rank, self.within(own - reach)), max(rank + 1, self.nearer(own + reach))
        return max(first - 1, 0), min(after + 1, self.below.size)

    def bounds(self, rank: int, candidates: int, error: float = 0.0) -> Bounds:
        """Returns where u may lie if every logit may be wrong by *error*.

        With errors of at most d, tokens that are 2 d or more above the token certainly precede it,
        and none that is more than 2 d below it can. Whatever precedes it can lose at most the
        factor exp(-d / T) of its mass while all else gains exp(d / T), so that the odds of a
        cumulative probability change by at most exp(2 d / T). Both together bound the interval
        from outside; without an error it is the interval of the selector itself.

        Args:
            rank: Rank of the token here.
            candidates: Number of tokens that truncation has kept, at least 1.
            error: In nats.
        """
        own = float(self.below[rank])
        before = int(self.cumulative[min(rank, self.within(own - 2.0 * error))])
        until = int(self.cumulative[max(rank + 1, self.nearer(own + 2.0 * error))])
        shift = 2.0 * error / self.temperature
        if self.window:
            low, high = self._widest(before, until, candidates, self.starts(error))
        else:
            below = int(self.cumulative[self.start])
            total = int(self.cumulative[min(self.start + candidates, self.below.size)]) - below
            low, high = (
                ((before - below) / total, (until - below) / total) if total > 0 else (1.0, 0.0)
            )
        return Bounds(_shifted(low, -shift), _shifted(high, shift))

    def _widest(
        self, before: int, until: int, candidates: int, starts: IndexArray
    ) -> tuple[float, float]:
        """Returns the smallest and the largest share that two masses are at, of all *starts*."""
        below = self.cumulative[starts]
        total = self.cumulative[np.minimum(starts + candidates, self.below.size)] - below
        below, total = below[total > 0], total[total > 0]
        low = ((before - below) / total).min(initial=1.0)
        return float(low), float(((until - below) / total).max(initial=0.0))

    def probability(self, rank: int, candidates: int) -> float:
        """Returns the probability of the token at *rank* among *candidates* kept ones."""
        stop = min(self.start + candidates, self.below.size)
        total = int(self.cumulative[stop] - self.cumulative[self.start])
        return int(self.cumulative[rank + 1] - self.cumulative[rank]) / total if total > 0 else 0.0

    def needed_for_u(self, rank: int, candidates: int, u: float) -> float:
        """Returns the smallest error of the logits with which *u* selects the token."""
        return smallest_error(lambda error: _inside(u, self.bounds(rank, candidates, error)))

    def needed_for_rank(self, rank: int, recorded: int) -> float:
        """Returns the smallest error of the logits with which the token has the *recorded* rank.

        As many tokens have to change sides as there are ranks between; they, and the token, can
        each move by the error.
        """
        if recorded >= self.below.size:
            return INEXPLICABLE
        return min(abs(float(self.below[rank] - self.below[recorded])) / 2.0, INEXPLICABLE)


def smallest_error(explains: Callable[[float], bool]) -> float:
    """Returns the smallest error at which *explains* is true; :data:`INEXPLICABLE` if none is.

    Args:
        explains: False below some error, true from there on.
    """
    if explains(0.0):
        return 0.0
    if explains(_SMALLEST):
        return _SMALLEST
    if not explains(INEXPLICABLE / 2.0):
        return INEXPLICABLE
    low, high = math.log(_SMALLEST), math.log(INEXPLICABLE)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if explains(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _inside(u: float, bounds: Bounds) -> bool:
    return bounds.low <= u <= bounds.high


def _shifted(share: float, shift: float) -> float:
    """Returns the probability whose log odds are those of *share* plus *shift*."""
    if not 0.0 < share < 1.0:
        return min(max(share, 0.0), 1.0)
    log_odds = math.log(share) - math.log1p(-share) + shift
    return 1.0 / (1.0 + math.exp(min(-log_odds, 700.0)))
