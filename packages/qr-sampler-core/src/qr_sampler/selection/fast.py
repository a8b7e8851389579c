# SPDX-License-Identifier: Apache-2.0
"""The fast selector: a few passes over the row, and a proof that the token is the right one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from qr_sampler._typing import FloatArray, IndexArray, Logits
from qr_sampler.rows import Rows
from qr_sampler.selection.candidates import Candidates, Choice, RankingAt, find_candidates
from qr_sampler.selection.filters import Cut, Filters, Ranking
from qr_sampler.selection.head import Head
from qr_sampler.selection.histogram import Histogram
from qr_sampler.selection.masses import distances, unit_exponent
from qr_sampler.selection.passes import RowPasses, mass_bounds, weight_bounds
from qr_sampler.selection.ranked_tokens import RankedTokens, rank_order
from qr_sampler.selection.selector import Measurement, SelectionResult, Selector
from qr_sampler.selection.statistics import Moments

__all__ = ["FastMeasurement", "FastPlan", "FastSelector"]


@dataclass(slots=True)
class FastRow:
    """What is known of one row."""

    logits: Logits
    """Shape ``(V,)``."""
    maximum: np.float32
    """The largest logit."""
    filters: Filters
    """How it is truncated."""
    head: Head
    """Its leading tokens."""
    moments: Moments
    """Its entropy and varentropy, as settled as its temperature needs them."""
    deviation: float
    """Standard deviation of its logits; NaN where top-n-sigma is off."""
    weight: float
    """Sum of exp(d) over the row, its weight at temperature 1."""
    totals: dict[float, Cut] = field(default_factory=dict)
    """The cut after the last rank, by 1 / T, where it has been asked for."""

    @property
    def exponent(self) -> int:
        """The mass of the most probable token is 2**exponent."""
        return unit_exponent(self.logits.size)

    def candidates(self, inverse: float, ranking_at: RankingAt) -> Candidates | None:
        """Returns the tokens that survive truncation, or ``None`` if the ranking cannot tell."""
        return find_candidates(ranking_at, inverse, self.filters, self.deviation, self.exponent)

    def choose(self, inverse: float, ranking_at: RankingAt, u: float) -> Choice | None:
        """Returns the token that u selects, or ``None`` if the ranking cannot tell."""
        candidates = self.candidates(inverse, ranking_at)
        return None if candidates is None else candidates.choose(u)


@dataclass(frozen=True, slots=True, kw_only=True)
class FastMeasurement(Measurement):
    """The statistics together with the rows."""

    fast_rows: list[FastRow]
    """The D decidable rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPlan:
    """What can be said about D rows before u is known."""

    fast_rows: list[FastRow]
    """The rows."""
    inverse_temperature: list[float]
    """1 / T of each."""
    candidates: list[Candidates | None]
    """Of each row, where its head is enough to know."""


class FastSelector(Selector[FastMeasurement, FastPlan]):
    """Selects without sorting the row.

    Column maxima give the leading tokens, a float32 pass gives the total within proved bounds. If
    every total within the bounds leads to the same token, that is the token. Otherwise a histogram
    of exact masses narrows the question down to one bin. Only typical-p can make it necessary to
    sort the row.

    Args:
        make_passes: Makes what does the work on rows of a given number of tokens.
    """

    def __init__(self, make_passes: Callable[[int], RowPasses] = RowPasses) -> None:
        self._make_passes = make_passes
        self._passes = make_passes(0)

    def measure(
        self,
        logits: Logits,
        rows: Rows,
        temperature: FloatArray,
        settle: IndexArray | None = None,
    ) -> FastMeasurement:
        """Returns the statistics of the decidable rows. Arguments as in :class:`Selector`."""
        ready_ns = time.monotonic_ns()
        vocab_size = logits.shape[1]
        if self._passes.vocab_size != vocab_size:
            self._passes = self._make_passes(vocab_size)
        filters = rows.derived(_filters, vocab_size)
        wanted = (np.where(np.isnan(temperature), 2, 0) if settle is None else settle).tolist()
        inverse = (1.0 / temperature).tolist()
        measured = map(self._measure, logits, filters, wanted, inverse)
        found = {line: row for line, row in enumerate(measured) if row is not None}
        fast_rows, decidable = list(found.values()), np.array(list(found), dtype=np.intp)
        moments = np.array([row.moments for row in fast_rows], dtype=np.float64).reshape(-1, 2)
        return FastMeasurement(
            lines=decidable,
            rows=rows.take(decidable),
            vocab_size=vocab_size,
            logits_ready_ns=ready_ns,
            entropy_nats=moments[:, 0],
            varentropy_nats2=moments[:, 1],
            logit_deviation=np.array([row.deviation for row in fast_rows], dtype=np.float64),
            fast_rows=fast_rows,
        )

    def prepare(self, measurement: FastMeasurement, temperature: FloatArray) -> FastPlan:
        """Returns the candidates of the rows whose leading tokens are enough to know them."""
        inverse = (1.0 / temperature).tolist()
        pairs = zip(measurement.fast_rows, inverse, strict=True)
        return FastPlan(
            fast_rows=measurement.fast_rows,
            inverse_temperature=inverse,
            candidates=[row.candidates(value, self._head_ranking(row)) for row, value in pairs],
        )

    def pick(self, plan: FastPlan, u: FloatArray) -> SelectionResult:
        """Returns the token of each row."""
        rows = zip(
            plan.fast_rows, plan.inverse_temperature, plan.candidates, u.tolist(), strict=True
        )
        choices = [self._choose(*row) for row in rows]
        return SelectionResult(
            token_ids=np.array([choice.token_id for choice in choices], dtype=np.intp),
            rank=np.array([choice.rank for choice in choices], dtype=np.intp),
            probability=np.array([choice.probability for choice in choices], dtype=np.float64),
            candidates=np.array([choice.candidates for choice in choices], dtype=np.intp),
        )

    def _measure(
        self, logits: Logits, filters: Filters, settle: int, inverse: float
    ) -> FastRow | None:
        """Returns what can be said of one row, or ``None`` if it has no finite maximum."""
        passes = self._passes
        maximum = passes.maximum(logits)
        if not math.isfinite(maximum):
            return None
        # The leading tokens first, while the row is in the processor's cache.
        head = passes.head(logits)
        measured = passes.moments(logits, maximum)
        settled = not settle or measured.settles(settle)
        row = FastRow(
            logits=logits,
            maximum=maximum,
            filters=filters,
            head=head,
            moments=measured.moments if settled else passes.settled_moments(logits, maximum),
            deviation=passes.deviation(logits) if filters.top_n_sigma else math.nan,
            weight=measured.weight,
        )
        if filters.needs_total and not settle:
            self._total(row, inverse)
        return row

    def _choose(
        self, row: FastRow, inverse: float, candidates: Candidates | None, u: float
    ) -> Choice:
        choice = candidates.choose(u) if candidates is not None else None
        if choice is None:
            choice = row.choose(inverse, self._histogram(row), u)
        if choice is None:
            # A sorted row leaves no question open.
            choice = cast("Choice", row.choose(inverse, _sorted_ranking(row), u))
        return choice

    def _total(self, row: FastRow, inverse: float) -> Cut:
        """Returns the cut after the last rank, in one pass over the row unless that was made."""
        total = row.totals.get(inverse)
        if total is None:
            weight, size = row.weight, row.logits.size
            if inverse != 1.0:
                weight = self._passes.weight(row.logits, row.maximum, inverse)
            total = Cut(size, *mass_bounds(weight_bounds(weight), size, row.exponent))
            row.totals[inverse] = total
        return total

    def _head_ranking(self, row: FastRow) -> RankingAt:
        def ranking_at(inverse: float) -> Ranking:
            return RankedTokens(
                *row.head,
                inverse,
                row.exponent,
                vocab_size=row.logits.size,
                masses=self._passes.masses(row.head.distance, inverse, row.exponent),
                total=lambda: self._total(row, inverse),
            )

        return ranking_at

    def _histogram(self, row: FastRow) -> RankingAt:
        bins, exponent = self._passes.bins, row.exponent
        return lambda inverse: Histogram(row.logits, row.maximum, inverse, exponent, bins)


def _filters(rows: Rows, vocab_size: int) -> list[Filters]:
    return [Filters.of(parameters, vocab_size) for parameters in rows.parameters]


def _sorted_ranking(row: FastRow) -> RankingAt:
    size = row.logits.size
    order = rank_order(row.logits, np.arange(size))
    distance = distances(row.logits)[order]

    def ranking_at(inverse: float) -> Ranking:
        return RankedTokens(order, distance, inverse, row.exponent, vocab_size=size)

    return ranking_at
