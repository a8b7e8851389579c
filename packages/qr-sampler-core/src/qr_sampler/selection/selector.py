# SPDX-License-Identifier: Apache-2.0
"""Selection of one token per row by the quantile of its probability-ordered distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qr_sampler._typing import FloatArray, IndexArray, Logits, MassArray
from qr_sampler.rows import Rows
from qr_sampler.selection.masses import MASS_UNIT, ceil_products, fixed_point_masses

__all__ = ["SelectionPlan", "SelectionResult", "TokenSelector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionPlan:
    """Everything about a selection that does not depend on u."""

    order: IndexArray
    """Shape ``(B, V)``, token ids by descending logit, ties by ascending id."""
    cumulative: MassArray
    """Shape ``(B, V)``, running totals of the masses in that order."""
    kept: IndexArray
    """Shape ``(B,)``, number of leading ranks that survive truncation, at least 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionResult:
    """The token of each row and where it stood."""

    token_ids: IndexArray
    """Shape ``(B,)``."""
    rank: IndexArray
    """Shape ``(B,)``, 0 for the most probable token."""
    probability: FloatArray
    """Shape ``(B,)``, of the token after temperature and truncation, in (0, 1]."""
    candidates: IndexArray
    """Shape ``(B,)``, number of tokens that could have been selected."""


class TokenSelector:
    """The reference selector: sort, cumulative sum, search.

    Tokens are ordered by descending logit, ties by ascending token id. Temperature comes first,
    then top-k, min-p and top-p; each keeps a prefix of that order, and top-p acts on what the
    others kept. With ``truncate_first`` the three act on the distribution at temperature 1 instead.
    The selected token is the first whose cumulative mass reaches ``u`` times the total. Masses are
    integers (:mod:`qr_sampler.selection.masses`), so the comparison is exact and a token of mass 0
    is never selected for u in (0, 1).
    """

    def prepare(self, logits: Logits, temperature: FloatArray, rows: Rows) -> SelectionPlan:
        """Returns the plan of a selection; everything that can be computed before u is known.

        Args:
            logits: Shape ``(B, V)``, float32, with a finite maximum in every row.
            temperature: Shape ``(B,)``, positive.
            rows: The parameters of the B rows.
        """
        order = np.argsort(-logits, axis=1, kind="stable")
        cumulative = _ranked_totals(logits, temperature, order)
        kept = _kept_ranks(cumulative, rows)
        first = np.flatnonzero(rows.column("truncate_first"))
        if first.size:
            untempered = _ranked_totals(logits[first], np.ones(first.size), order[first])
            kept[first] = _kept_ranks(untempered, rows.take(first))
        return SelectionPlan(order=order, cumulative=cumulative, kept=kept)

    def pick(self, plan: SelectionPlan, u: FloatArray) -> SelectionResult:
        """Returns the token of each row.

        Args:
            plan: The plan of B rows.
            u: Shape ``(B,)``, in the open interval (0, 1).
        """
        totals = _totals_at(plan.cumulative, plan.kept)
        rank = _first_reaching(plan.cumulative, ceil_products(u, totals))
        lines = np.arange(len(rank))
        below = np.where(rank > 0, plan.cumulative[lines, rank - 1], 0)
        return SelectionResult(
            token_ids=plan.order[lines, rank],
            rank=rank,
            probability=(plan.cumulative[lines, rank] - below) / totals,
            candidates=_first_reaching(plan.cumulative, totals) + 1,
        )


def _ranked_totals(logits: Logits, temperature: FloatArray, order: IndexArray) -> MassArray:
    masses = np.take_along_axis(fixed_point_masses(logits, temperature), order, axis=1)
    return np.cumsum(masses, axis=1)


def _kept_ranks(cumulative: MassArray, rows: Rows) -> IndexArray:
    """Returns how many leading ranks survive top-k, then min-p, then top-p. Shape ``(B,)``."""
    kept = _top_k_ranks(cumulative.shape[1], rows)
    kept = np.minimum(kept, _min_p_ranks(cumulative, rows))
    top_p = rows.column("top_p")
    reaching = _first_reaching(cumulative, ceil_products(top_p, _totals_at(cumulative, kept))) + 1
    # 1 keeps all: with truncate_first, a mass that is 0 at temperature 1 may count at another.
    return np.where(top_p < 1.0, np.minimum(kept, reaching), kept)


def _top_k_ranks(vocab_size: int, rows: Rows) -> IndexArray:
    top_k = rows.column("top_k")
    return np.where(top_k > 0, np.minimum(top_k, vocab_size), vocab_size).astype(np.intp)


def _min_p_ranks(cumulative: MassArray, rows: Rows) -> IndexArray:
    """Returns the length of the prefix whose masses reach min_p times the largest mass."""
    units = np.full(len(rows), MASS_UNIT, dtype=np.int64)
    thresholds = ceil_products(rows.column("min_p"), units)
    masses = np.diff(cumulative, axis=1, prepend=0)
    below = masses < thresholds[:, np.newaxis]
    kept: IndexArray = np.where(below.any(axis=1), below.argmax(axis=1), cumulative.shape[1])
    return kept


def _totals_at(cumulative: MassArray, kept: IndexArray) -> MassArray:
    totals: MassArray = cumulative[np.arange(len(kept)), kept - 1]
    return totals


def _first_reaching(cumulative: MassArray, wanted: MassArray) -> IndexArray:
    """Returns the first rank of each row whose running total is at least *wanted*."""
    pairs = zip(cumulative, wanted, strict=True)
    ranks = [int(np.searchsorted(totals, value, side="left")) for totals, value in pairs]
    return np.array(ranks, dtype=np.intp)
