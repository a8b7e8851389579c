# SPDX-License-Identifier: Apache-2.0
"""The distributions that requests specify for their next tokens, in the rows of a step.

They are those that the sampling pipeline draws from, by the same definitions: temperature by the
request's strategy, masses in fixed point, filters in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from qr_sampler import ReferenceSelector, Rows, Selector, StepPlan, StepPlanner
from qr_sampler.arrays import FloatArray, IndexArray
from qr_sampler.selection import Residual, RowLaws

__all__ = ["RowToken", "TargetLaws"]


class RowToken(NamedTuple):
    """A token in a row of a step."""

    row: int
    """Index of the row."""
    token_id: int
    """The token."""


class TargetLaws:
    """The target distributions of the rows of a step, asked for many rows at once.

    Args:
        plan: The rows.
        selector: What has planned them.
    """

    def __init__(self, plan: StepPlan, selector: Selector[Any, Any]) -> None:
        self.plan = plan
        self._laws: RowLaws = selector.laws(plan.selection)
        self._index = {line: index for index, line in enumerate(plan.lines.tolist())}

    @classmethod
    def of(cls, logits: Any, rows: Rows, selector: Selector[Any, Any] | None = None) -> TargetLaws:
        """Returns the laws of rows of logits.

        Args:
            logits: Shape ``(B, V)``, float32, complete, constraints applied, of the kind that the
                selector takes.
            rows: The parameters of the B rows.
            selector: The reference if not given.
        """
        chosen = ReferenceSelector() if selector is None else selector
        return cls(StepPlanner(chosen).prepare(logits, rows), chosen)

    def __contains__(self, row: int) -> bool:
        """Whether *row* has a distribution: not if all tokens are masked or a logit is NaN."""
        return row in self._index

    def index(self, row: int) -> int:
        """Returns the index of *row* among the rows of the plan."""
        return self._index[row]

    def probs(self, row: int) -> FloatArray:
        """Returns the probabilities of all tokens in *row*. Shape ``(V,)``."""
        return self._laws.dense(self._index[row])

    def rank(self, row: int, token: int) -> int:
        """Returns the rank of *token* in *row*, 0 for the most probable."""
        return int(self.ranks([RowToken(row, token)])[0])

    def candidates(self, row: int) -> int:
        """Returns how many tokens truncation kept in *row*."""
        return int(self._candidates[self._index[row]])

    def probabilities(self, tokens: Sequence[RowToken]) -> FloatArray:
        """Returns the probability of each of N tokens. Shape ``(N,)``."""
        return self._laws.probabilities(*self._pairs(tokens)) if tokens else np.empty(0)

    def ranks(self, tokens: Sequence[RowToken]) -> IndexArray:
        """Returns the rank of each of N tokens. Shape ``(N,)``."""
        return self._laws.ranks(*self._pairs(tokens)) if tokens else np.empty(0, dtype=np.intp)

    def remainders(self, residuals: Sequence[Residual]) -> FloatArray:
        """Returns the sum of each of N residuals, which name rows of the step. Shape ``(N,)``."""
        return self._laws.remainders(self._own(residuals)) if residuals else np.empty(0)

    def select(self, residuals: Sequence[Residual], u: FloatArray) -> IndexArray:
        """Returns a token of each of N residuals, which name rows of the step. Shape ``(N,)``.

        Args:
            residuals: What the tokens come from.
            u: Shape ``(N,)``, multiples of 2**-53 in [0, 1).
        """
        own = self._own(residuals)
        return self._laws.select(own, u) if residuals else np.empty(0, dtype=np.intp)

    @cached_property
    def _candidates(self) -> IndexArray:
        return self._laws.candidates

    def _pairs(self, tokens: Sequence[RowToken]) -> tuple[list[int], list[int]]:
        return [self._index[row] for row, _ in tokens], [token for _, token in tokens]

    def _own(self, residuals: Sequence[Residual]) -> list[Residual]:
        return [residual._replace(row=self._index[residual.row]) for residual in residuals]
