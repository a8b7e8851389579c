# SPDX-License-Identifier: Apache-2.0
"""The distribution that a request specifies for its next token, as a dense vector.

It is the one that the sampling pipeline draws from, by the same definitions: temperature by the
request's strategy, masses in fixed point, filters in their order. The masses are whole numbers with
a total of at most 2**53, so that each probability is one correctly rounded division.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qr_sampler import ReferenceSelector, Rows, StepPlan, StepPlanner
from qr_sampler.arrays import FloatArray

__all__ = ["TargetLaws"]


class TargetLaws:
    """The target distributions of the rows of a step.

    Sorts every row, which takes some 20 ms at V = 151,936.

    Args:
        logits: Shape ``(B, V)``, float32, complete, constraints applied.
        rows: The parameters of the B rows.
    """

    def __init__(self, logits: Any, rows: Rows) -> None:
        # Temperatures depend on the statistics of this selector alone, which all selectors share.
        self.plan: StepPlan = StepPlanner(ReferenceSelector()).prepare(logits, rows)
        self._dense: dict[int, FloatArray] = {}
        self._index = {line: index for index, line in enumerate(self.plan.lines.tolist())}

    def __contains__(self, row: int) -> bool:
        """Whether *row* has a distribution: not if all tokens are masked or a logit is NaN."""
        return row in self._index

    def index(self, row: int) -> int:
        """Returns the index of *row* among the rows of the plan."""
        return self._index[row]

    def probs(self, row: int) -> FloatArray:
        """Returns the probabilities of all tokens in *row*. Shape ``(V,)``, not to be changed."""
        if row not in self._dense:
            self._dense[row] = self._spread(self._index[row])
        return self._dense[row]

    def _spread(self, index: int) -> FloatArray:
        ranks = self.plan.selection
        start, stop = int(ranks.start[index]), int(ranks.stop[index])
        totals = ranks.cumulative[index, start : stop + 1]
        dense = np.zeros(ranks.order.shape[1])
        dense[ranks.order[index, start:stop]] = np.diff(totals) / float(totals[-1] - totals[0])
        return dense

    def rank(self, row: int, token: int) -> int:
        """Returns the rank of *token* in *row*, 0 for the most probable."""
        return int(np.flatnonzero(self.plan.selection.order[self._index[row]] == token)[0])

    def candidates(self, row: int) -> int:
        """Returns how many tokens truncation kept in *row*."""
        ranks, index = self.plan.selection, self._index[row]
        return int(ranks.stop[index] - ranks.start[index])
