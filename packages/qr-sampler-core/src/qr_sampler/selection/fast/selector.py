# SPDX-License-Identifier: Apache-2.0
"""The fast selector: a few passes over the row, and a proof that the token is the right one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from qr_sampler.arrays import FloatArray, IndexArray, Logits
from qr_sampler.rows import RowParameters, Rows
from qr_sampler.selection.fast.candidates import Candidates, Choice
from qr_sampler.selection.fast.passes import RowPasses
from qr_sampler.selection.fast.row import FastRow
from qr_sampler.selection.fast.row_laws import HostLaws, RowLaw
from qr_sampler.selection.filters import Filters
from qr_sampler.selection.selector import Measurement, SelectionResult, Selector
from qr_sampler.selection.statistics import Moments

__all__ = ["FastMeasurement", "FastPlan", "FastSelector"]


@dataclass(slots=True, kw_only=True)
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
    of exact masses narrows the question down to one bin, whose tokens are sorted if they are few.
    If they are many, pivots narrow it down further. No row takes more than a few passes.

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
        arguments = zip(logits, filters, wanted, inverse, strict=True)
        # Distances may be too large for float32, and masked tokens make 0 * -inf of some products.
        with np.errstate(over="ignore", invalid="ignore"):
            measured = enumerate(self._measure(*each) for each in arguments)
            found = {line: row for line, row in measured if row is not None}
        fast_rows, decidable = [row for row, _ in found.values()], np.array([*found], dtype=np.intp)
        moments = np.array([pair for _, pair in found.values()], dtype=np.float64).reshape(-1, 2)
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
            candidates=[row.candidates(value, row.head_ranking) for row, value in pairs],
        )

    def pick(self, plan: FastPlan, u: FloatArray) -> SelectionResult:
        """Returns the token of each row."""
        rows = zip(
            plan.fast_rows, plan.inverse_temperature, plan.candidates, u.tolist(), strict=True
        )
        choices = [_choose(*row) for row in rows]
        return SelectionResult(
            token_ids=np.array([choice.token_id for choice in choices], dtype=np.intp),
            rank=np.array([choice.rank for choice in choices], dtype=np.intp),
            probability=np.array([choice.probability for choice in choices], dtype=np.float64),
            candidates=np.array([choice.candidates for choice in choices], dtype=np.intp),
        )

    def laws(self, plan: FastPlan) -> HostLaws:
        """Returns the laws of the rows."""
        rows = zip(plan.fast_rows, plan.inverse_temperature, plan.candidates, strict=True)
        return HostLaws([RowLaw(*row) for row in rows])

    def _measure(
        self, logits: Logits, filters: Filters, settle: int, inverse: float
    ) -> tuple[FastRow, Moments] | None:
        """Returns one row, and its moments as settled as its temperature needs them.

        ``None`` if it has no finite maximum.
        """
        passes = self._passes
        maximum = passes.maximum(logits)
        if not math.isfinite(maximum):
            return None
        # The leading tokens first, while the row is in the processor's cache.
        head = passes.head(logits, maximum)
        measured = passes.moments(logits, maximum)
        settled = not settle or measured.settles(settle)
        row = FastRow(
            logits=logits,
            maximum=maximum,
            filters=filters,
            passes=passes,
            head=head,
            deviation=passes.deviation(logits) if filters.top_n_sigma else math.nan,
            weight=measured.weight,
        )
        if filters.needs_total and not settle:
            row.total(inverse)
        moments = measured.moments if settled else passes.settled_moments(logits, maximum)
        return row, moments


def _choose(row: FastRow, inverse: float, candidates: Candidates | None, u: float) -> Choice:
    choice = candidates.choose(u) if candidates is not None else None
    if choice is None:
        # The histogram leaves no question open.
        choice = cast("Choice", row.choose(inverse, row.histogram_ranking, u))
    return choice


def _filters(rows: RowParameters, vocab_size: int) -> list[Filters]:
    return [Filters.of(parameters, vocab_size) for parameters in rows.parameters]
