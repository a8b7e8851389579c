# SPDX-License-Identifier: Apache-2.0
"""The laws of rows whose tokens have been sorted: the definition of laws in the fewest words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qr_sampler.arrays import FloatArray, IndexArray, MassArray
from qr_sampler.selection.laws import (
    RESIDUAL_UNIT,
    Residual,
    RowLaws,
    goal_above,
    residual_masses,
)

__all__ = ["RankedLaws"]


class RankedLaws(RowLaws):
    """Laws as dense vectors; others are tested against them.

    Args:
        order: Shape ``(D, V)``, token ids in rank order.
        cumulative: Shape ``(D, V + 1)``, total mass of the ranks before each rank, and of all.
        start: Shape ``(D,)``, first rank that survives truncation.
        stop: Shape ``(D,)``, one more than the last rank that does.
    """

    def __init__(
        self, order: IndexArray, cumulative: MassArray, start: IndexArray, stop: IndexArray
    ) -> None:
        self._order, self._cumulative = order, cumulative
        self._start, self._stop = start, stop

    @property
    def candidates(self) -> IndexArray:
        """Numbers of tokens that truncation kept."""
        return self._stop - self._start

    def probabilities(self, rows: Sequence[int], token_ids: Sequence[int]) -> FloatArray:
        """Returns the probability of a token for each pair."""
        pairs = zip(rows, token_ids, strict=True)
        return np.array([self.dense(row)[token_id] for row, token_id in pairs], dtype=np.float64)

    def ranks(self, rows: Sequence[int], token_ids: Sequence[int]) -> IndexArray:
        """Returns the rank of a token for each pair."""
        pairs = zip(rows, token_ids, strict=True)
        places = [np.flatnonzero(self._order[row] == token_id)[0] for row, token_id in pairs]
        return np.array(places, dtype=np.intp)

    def dense(self, row: int) -> FloatArray:
        """Returns the probabilities of all tokens of *row*."""
        masses = self._masses(row)
        dense: FloatArray = masses / masses.sum()
        return dense

    def remainders(self, residuals: Sequence[Residual]) -> FloatArray:
        """Returns the sum of each residual."""
        sums = [
            1.0 if residual.law is None else float(self._residual(residual).sum()) / RESIDUAL_UNIT
            for residual in residuals
        ]
        return np.array(sums, dtype=np.float64)

    def select(self, residuals: Sequence[Residual], u: FloatArray) -> IndexArray:
        """Returns a token of each residual."""
        pairs = zip(residuals, u.tolist(), strict=True)
        return np.array([self._token(residual, own) for residual, own in pairs], dtype=np.intp)

    def _token(self, residual: Residual, u: float) -> int:
        masses = self._residual(residual)
        if not masses.any():
            masses = self._masses(residual.row)
        running = masses.cumsum()
        return int(running.searchsorted(goal_above(u, int(running[-1])), side="left"))

    def _residual(self, residual: Residual) -> FloatArray:
        if residual.law is None:
            return self._masses(residual.row)
        p = self.dense(residual.row)
        q = np.full(p.size, residual.law.elsewhere)
        q[residual.law.token_ids] = residual.law.probabilities
        return residual_masses(p, residual.weight, q)

    def _masses(self, row: int) -> FloatArray:
        """Returns the masses of all tokens, 0 for those that are truncated. Shape ``(V,)``."""
        start, stop = int(self._start[row]), int(self._stop[row])
        masses = np.zeros(self._order.shape[1])
        masses[self._order[row, start:stop]] = np.diff(self._cumulative[row, start : stop + 1])
        return masses
