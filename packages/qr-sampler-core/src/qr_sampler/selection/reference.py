# SPDX-License-Identifier: Apache-2.0
"""The reference selector: sort, cumulative sum, search."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from qr_sampler.arrays import Distances, FloatArray, IndexArray, Logits, MassArray
from qr_sampler.rows import Rows
from qr_sampler.selection.filters import typical_range
from qr_sampler.selection.masses import (
    ceil_products,
    distances,
    fixed_point_masses,
    unit_exponent,
)
from qr_sampler.selection.ranked_laws import RankedLaws
from qr_sampler.selection.selector import Measurement, SelectionResult, Selector
from qr_sampler.selection.statistics import logit_deviation, row_moments

__all__ = ["ReferenceMeasurement", "ReferencePlan", "ReferenceSelector"]


@dataclass(slots=True, kw_only=True)
class ReferenceMeasurement(Measurement):
    """The statistics together with the rows themselves."""

    logits: Logits
    """Shape ``(D, V)``, the decidable rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencePlan:
    """Everything about a selection that does not depend on u."""

    order: IndexArray
    """Shape ``(D, V)``, token ids by descending logit, ties by ascending id."""
    cumulative: MassArray
    """Shape ``(D, V + 1)``, total mass of the ranks before each rank, and of all."""
    start: IndexArray
    """Shape ``(D,)``, first rank that survives truncation."""
    stop: IndexArray
    """Shape ``(D,)``, one more than the last rank that does."""


class ReferenceSelector(Selector[ReferenceMeasurement, ReferencePlan]):
    """Says what a selection is in the fewest words; others are tested against it."""

    def measure(
        self,
        logits: Logits,
        rows: Rows,
        temperature: FloatArray,
        settle: IndexArray | None = None,
    ) -> ReferenceMeasurement:
        """Returns the statistics, always settled. Arguments as in :class:`Selector`."""
        ready_ns = time.monotonic_ns()
        lines = np.flatnonzero(np.isfinite(logits.max(axis=1)))
        logits, rows = logits[lines], rows.take(lines)
        moments = np.array([row_moments(row) for row in distances(logits)]).reshape(-1, 2)
        wanted = zip(logits, rows.column("top_n_sigma"), strict=True)
        return ReferenceMeasurement(
            lines=lines,
            rows=rows,
            vocab_size=logits.shape[1],
            logits_ready_ns=ready_ns,
            entropy_nats=moments[:, 0],
            varentropy_nats2=moments[:, 1],
            logit_deviation=np.array([logit_deviation(row) if n else np.nan for row, n in wanted]),
            logits=logits,
        )

    def prepare(self, measurement: ReferenceMeasurement, temperature: FloatArray) -> ReferencePlan:
        """Returns order, running totals and surviving ranks."""
        logits, rows = measurement.logits, measurement.rows
        order = np.argsort(-logits, axis=1, kind="stable")
        ranked = np.take_along_axis(distances(logits), order, axis=1)
        first = rows.column("truncate_first") > 0.0
        plain = _running_totals(ranked, np.where(first, 1.0, temperature))
        cumulative = _running_totals(ranked, temperature)
        stop = _leading_ranks(ranked, plain, measurement.logit_deviation, rows)
        start, stop = _typical_ranks(ranked, cumulative, temperature, stop, rows)
        return ReferencePlan(order=order, cumulative=cumulative, start=start, stop=stop)

    def pick(self, plan: ReferencePlan, u: FloatArray) -> SelectionResult:
        """Returns the token of each row."""
        lines = np.arange(len(u))
        below = plan.cumulative[lines, plan.start]
        totals = plan.cumulative[lines, plan.stop] - below
        rank = _ranks_reaching(plan.cumulative, below + ceil_products(u, totals)) - 1
        masses = plan.cumulative[lines, rank + 1] - plan.cumulative[lines, rank]
        return SelectionResult(
            token_ids=plan.order[lines, rank],
            rank=rank,
            probability=masses / totals,
            candidates=plan.stop - plan.start,
        )

    def laws(self, plan: ReferencePlan) -> RankedLaws:
        """Returns the laws of the rows."""
        return RankedLaws(plan.order, plan.cumulative, plan.start, plan.stop)


def _leading_ranks(
    ranked: Distances, cumulative: MassArray, deviation: FloatArray, rows: Rows
) -> IndexArray:
    """Returns how many leading ranks survive all filters but typical-p."""
    vocab_size, top_k, top_p = ranked.shape[1], rows.column("top_k"), rows.column("top_p")
    kept = np.where(top_k > 0, np.minimum(top_k, vocab_size), vocab_size).astype(np.intp)
    kept = np.minimum(kept, _top_n_sigma_ranks(ranked, deviation, rows))
    kept = np.minimum(kept, _min_p_ranks(cumulative, rows))
    totals = cumulative[np.arange(len(kept)), kept]
    reaching = _ranks_reaching(cumulative, ceil_products(top_p, totals))
    # 1 keeps all: with truncate_first, a mass that is 0 at temperature 1 may count at another.
    return np.where(top_p < 1.0, np.minimum(kept, reaching), kept)


def _typical_ranks(
    ranked: Distances,
    cumulative: MassArray,
    temperature: FloatArray,
    kept: IndexArray,
    rows: Rows,
) -> tuple[IndexArray, IndexArray]:
    """Returns the first rank that survives typical-p as well, and the one after the last."""
    start, stop = np.zeros_like(kept), kept.copy()
    typical_p = rows.column("typical_p")
    for line in np.flatnonzero(typical_p < 1.0):
        exponents = ranked[line, : kept[line]].astype(np.float64) * (1.0 / temperature[line])
        masses = np.diff(cumulative[line, : kept[line] + 1]).astype(np.float64)
        start[line], stop[line] = typical_range(exponents, masses, float(typical_p[line]))
    return start, stop


def _running_totals(ranked: Distances, temperature: FloatArray) -> MassArray:
    inverse = (1.0 / temperature)[:, np.newaxis]
    masses = fixed_point_masses(ranked, inverse, unit_exponent(ranked.shape[1]))
    return np.pad(np.cumsum(masses.astype(np.int64), axis=1), ((0, 0), (1, 0)))


def _top_n_sigma_ranks(ranked: Distances, deviation: FloatArray, rows: Rows) -> IndexArray:
    """Returns how many tokens lie within n standard deviations of the maximum; V where off."""
    sigmas = rows.column("top_n_sigma")
    farthest = np.where(sigmas > 0.0, -sigmas * deviation, -np.inf)
    return np.asarray(np.count_nonzero(ranked >= farthest[:, np.newaxis], axis=1))


def _min_p_ranks(cumulative: MassArray, rows: Rows) -> IndexArray:
    """Returns how many tokens have at least min_p times the largest mass."""
    masses = np.diff(cumulative, axis=1)
    thresholds = ceil_products(rows.column("min_p"), masses[:, 0])
    return np.asarray(np.count_nonzero(masses >= thresholds[:, np.newaxis], axis=1))


def _ranks_reaching(cumulative: MassArray, goals: MassArray) -> IndexArray:
    """Returns the length of the shortest prefix of each row whose mass is at least its goal."""
    pairs = zip(cumulative, goals, strict=True)
    ranks = [np.searchsorted(totals, goal, side="left") for totals, goal in pairs]
    return np.array(ranks, dtype=np.intp)
