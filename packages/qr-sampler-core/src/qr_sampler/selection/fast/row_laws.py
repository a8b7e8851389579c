# SPDX-License-Identifier: Apache-2.0
"""The laws of rows in the memory of the host, without sorting them.

Truncation keeps the tokens from one rank to another. The tokens at both ranks tell of any token
whether it is kept, so that a probability takes no more than the total. Where nothing truncates, the
total takes one pass over the row, in pieces that fit into the processor's cache; where something
does, only what is kept is weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, cast

import numpy as np

from qr_sampler.arrays import Distances, FloatArray, IndexArray, Logits, MaskArray
from qr_sampler.selection.fast.candidates import Candidates
from qr_sampler.selection.fast.row import FastRow
from qr_sampler.selection.laws import (
    RESIDUAL_UNIT,
    Residual,
    RowLaws,
    SparseLaw,
    goal_above,
    residual_masses,
)

__all__ = ["HostLaws", "RowLaw"]

PIECE: Final = 8192
"""Tokens that are worked on at a time."""


class Kept(NamedTuple):
    """The tokens that truncation kept: those from one rank to another, which two tokens mark."""

    first: int | None
    """The first of them in rank order; ``None`` if it is the most probable of all."""
    last: int | None
    """The last of them; ``None`` if no token is less probable."""

    @classmethod
    def of(cls, candidates: Candidates, vocab_size: int) -> Kept:
        """Returns the tokens that survive truncation in a row of V tokens."""
        ranking, start, stop = candidates
        first = last = None
        if start.rank:
            ranking.after_rank(start.rank + 1)
            first = ranking.token(start.rank)[0]
        if stop.rank < vocab_size:
            ranking.after_rank(stop.rank)
            last = ranking.token(stop.rank - 1)[0]
        return cls(first, last)

    def mask(self, logits: Logits, token_ids: IndexArray) -> MaskArray:
        """Returns which of *token_ids* are among them. Shapes ``(V,)`` and ``(N,)``."""
        own = logits[token_ids]
        kept = np.ones(own.size, dtype=np.bool_)
        if self.last is not None:
            edge = logits[self.last]
            kept &= (own > edge) | ((own == edge) & (token_ids <= self.last))
        if self.first is not None:
            edge = logits[self.first]
            kept &= (own < edge) | ((own == edge) & (token_ids >= self.first))
        return kept


class RowLaw:
    """The law of one row.

    Args:
        row: The row.
        inverse: 1 / T.
        candidates: Its tokens that survive truncation; ``None`` to find them.
    """

    def __init__(self, row: FastRow, inverse: float, candidates: Candidates | None) -> None:
        self._row, self._inverse = row, inverse
        self._whole = 0
        vocab_size = row.logits.size
        if row.filters.truncates:
            found = candidates or row.candidates(inverse, row.head_ranking)
            # The histogram leaves no question open.
            found = found or cast("Candidates", row.candidates(inverse, row.histogram_ranking))
            self.kept = Kept.of(found, vocab_size)
            self.candidates = found.stop.rank - found.start.rank
            if found.stop.lowest == found.stop.highest:
                self._whole = found.stop.lowest - found.start.lowest
        else:
            self.kept, self.candidates = Kept(None, None), vocab_size
        self._ids = None if self.kept == (None, None) else self._kept_ids()

    @property
    def total(self) -> int:
        """The mass of the tokens that truncation kept, computed when it is first needed."""
        if not self._whole:
            self._whole = sum(int(self._masses(place).sum()) for place in self._places())
        return self._whole

    def probability(self, token_id: int) -> float:
        """Returns the probability of a token."""
        row, own = self._row, np.array([token_id])
        if not self.kept.mask(row.logits, own)[0]:
            return 0.0
        return float(row.passes.masses(self._distances(own), self._inverse, row.exponent)[0]) / (
            self.total
        )

    def rank(self, token_id: int) -> int:
        """Returns the rank of a token."""
        logits = self._row.logits
        own = logits[token_id]
        return int(np.count_nonzero(logits > own)) + int(np.count_nonzero(logits[:token_id] == own))

    def dense(self) -> FloatArray:
        """Returns the probabilities of all tokens. Shape ``(V,)``."""
        dense = np.zeros(self._row.logits.size)
        total = float(self.total)
        for place in self._places():
            dense[place if self._ids is None else self._ids[place]] = self._masses(place) / total
        return dense

    def remainder(self, residual: Residual) -> float:
        """Returns the sum of a residual of the row."""
        if residual.law is None:
            return 1.0
        return sum(self._residual_totals(residual)) / RESIDUAL_UNIT

    def select(self, residual: Residual, u: float) -> int:
        """Returns the token of a residual of the row."""
        totals = self._residual_totals(residual)
        if not any(totals):
            residual = Residual(residual.row)
            totals = self._residual_totals(residual)
        goal = goal_above(u, sum(totals))
        for place, total in zip(self._places(), totals, strict=True):
            if goal <= total:
                found = int(self._residual(place, residual).cumsum().searchsorted(goal))
                break
            goal -= total
        return place.start + found if self._ids is None else int(self._ids[place.start + found])

    def _places(self) -> list[slice]:
        """Returns the pieces of the kept tokens, which are in order of their ids."""
        count = self._row.logits.size if self._ids is None else self._ids.size
        return [slice(start, min(start + PIECE, count)) for start in range(0, count, PIECE)]

    def _kept_ids(self) -> IndexArray:
        """Returns the kept tokens, ascending. Shape ``(N,)``."""
        logits, last = self._row.logits, self.kept.last
        ids = np.arange(logits.size) if last is None else np.flatnonzero(logits >= logits[last])
        return ids[self.kept.mask(logits, ids)]

    def _masses(self, place: slice) -> FloatArray:
        row, own = self._row, place if self._ids is None else self._ids[place]
        return row.passes.masses(self._distances(own), self._inverse, row.exponent)

    def _distances(self, tokens: slice | IndexArray) -> Distances:
        with np.errstate(over="ignore"):
            distance: Distances = self._row.logits[tokens] - self._row.maximum
        return distance

    def _residual_totals(self, residual: Residual) -> list[int]:
        return [int(self._residual(place, residual).sum()) for place in self._places()]

    def _residual(self, place: slice, residual: Residual) -> FloatArray:
        masses = self._masses(place)
        if residual.law is None:
            return masses
        p = np.divide(masses, float(self.total), out=masses)
        q = self._proposed(place, residual.law)
        return residual_masses(p, residual.weight, q, out=p)

    def _proposed(self, place: slice, law: SparseLaw) -> FloatArray:
        """Returns the probabilities of a piece of the kept tokens under another law."""
        q = np.full(place.stop - place.start, law.elsewhere)
        if self._ids is None:
            among = slice(*law.token_ids.searchsorted((place.start, place.stop)).tolist())
            q[law.token_ids[among] - place.start] = law.probabilities[among]
            return q
        own = self._ids[place]
        places = np.minimum(own.searchsorted(law.token_ids), own.size - 1)
        found = own[places] == law.token_ids
        q[places[found]] = law.probabilities[found]
        return q


class HostLaws(RowLaws):
    """The laws of D rows.

    Args:
        laws: The law of each.
    """

    def __init__(self, laws: Sequence[RowLaw]) -> None:
        self._laws = laws

    @property
    def candidates(self) -> IndexArray:
        """Numbers of tokens that truncation kept."""
        return np.array([law.candidates for law in self._laws], dtype=np.intp)

    def probabilities(self, rows: Sequence[int], token_ids: Sequence[int]) -> FloatArray:
        """Returns the probability of a token for each pair."""
        pairs = zip(rows, token_ids, strict=True)
        return np.array([self._laws[row].probability(token_id) for row, token_id in pairs])

    def ranks(self, rows: Sequence[int], token_ids: Sequence[int]) -> IndexArray:
        """Returns the rank of a token for each pair."""
        pairs = zip(rows, token_ids, strict=True)
        return np.array([self._laws[row].rank(token) for row, token in pairs], dtype=np.intp)

    def dense(self, row: int) -> FloatArray:
        """Returns the probabilities of all tokens of *row*."""
        return self._laws[row].dense()

    def remainders(self, residuals: Sequence[Residual]) -> FloatArray:
        """Returns the sum of each residual."""
        sums = [self._laws[residual.row].remainder(residual) for residual in residuals]
        return np.array(sums, dtype=np.float64)

    def select(self, residuals: Sequence[Residual], u: FloatArray) -> IndexArray:
        """Returns a token of each residual."""
        pairs = zip(residuals, u.tolist(), strict=True)
        tokens = [self._laws[residual.row].select(residual, own) for residual, own in pairs]
        return np.array(tokens, dtype=np.intp)
