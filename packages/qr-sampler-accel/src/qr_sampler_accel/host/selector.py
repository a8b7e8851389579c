# SPDX-License-Identifier: Apache-2.0
"""The selector for logits in the memory of the host: a batch takes two compiled calls."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import cast

import numpy as np

from qr_sampler.arrays import FloatArray, IndexArray, Logits
from qr_sampler.rows import Rows
from qr_sampler.selection.fast.candidates import Choice
from qr_sampler.selection.fast.head import Head
from qr_sampler.selection.fast.row import FastRow
from qr_sampler.selection.filters import Filters
from qr_sampler.selection.masses import distances
from qr_sampler.selection.selector import Measurement, SelectionResult, Selector
from qr_sampler.selection.statistics import row_moments
from qr_sampler_accel.host.asked import TOP_N_SIGMA, filters_asked
from qr_sampler_accel.host.from_head import UNKNOWN
from qr_sampler_accel.host.passes import CompiledPasses
from qr_sampler_accel.host.row_loops import (
    ENTROPY,
    MAXIMUM,
    NUMBERS,
    SETTLED,
    VARENTROPY,
    WEIGHT,
    RowMemory,
    measure_rows,
    pick_rows,
    weigh_rows,
)
from qr_sampler_accel.host.statistics import compiled_deviation

__all__ = ["CompiledMeasurement", "CompiledPlan", "CompiledSelector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledMeasurement(Measurement):
    """The statistics together with the rows."""

    logits: Logits
    """Shape ``(B, V)``."""
    numbers: FloatArray
    """What was measured of the decidable rows. Shape ``(NUMBERS, D)``."""
    heads: tuple[IndexArray, Logits, IndexArray]
    """Leading tokens of shape ``(D, N)``, their distances, and how many they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPlan:
    """What can be said about D rows before u is known."""

    measurement: CompiledMeasurement
    """The rows."""
    asked: FloatArray
    """Their filters. Shape ``(D, COLUMNS)``."""
    farthest: FloatArray
    """The distances that top-n-sigma allows. Shape ``(D,)``."""
    inverse_temperature: FloatArray
    """1 / T. Shape ``(D,)``."""


class CompiledSelector(Selector[CompiledMeasurement, CompiledPlan]):
    """Selects as :class:`~qr_sampler.FastSelector` does, in compiled loops over the whole batch.

    Rows with typical-p, which the loops leave open, are worked on one by one.
    The first call waits for the compiler, unless :func:`~qr_sampler_accel.warm_up` has been called.
    """

    def __init__(self) -> None:
        self._memory = RowMemory(1)
        self._passes = CompiledPasses(1)

    def measure(
        self,
        logits: Logits,
        rows: Rows,
        temperature: FloatArray,
        settle: IndexArray | None = None,
    ) -> CompiledMeasurement:
        """Returns the statistics of the decidable rows. Arguments as in :class:`Selector`."""
        ready_ns = time.monotonic_ns()
        count, vocab_size = logits.shape
        memory = self._memory_for(vocab_size)
        # As the loops take it: of the type of their own memory.
        logits = np.require(logits, np.float32, ("C", "W"))
        asked = rows.derived(filters_asked, vocab_size)
        if settle is None:
            settle = np.where(np.isnan(temperature), 2, 0)
        numbers = np.empty((NUMBERS, count))
        heads = _empty_heads(count, memory.leading)
        decidable, unsettled = measure_rows(
            logits, asked, settle, 1.0 / temperature, memory.measuring, numbers, *heads
        )
        lines = np.arange(count)
        if decidable < count:
            lines = np.flatnonzero(np.isfinite(numbers[MAXIMUM]))
            # Consecutive, as the loops expect it.
            numbers = numbers.take(lines, axis=1)
            heads = (heads[0][lines], heads[1][lines], heads[2][lines])
        if unsettled:
            _settle(logits, lines, numbers)
        return CompiledMeasurement(
            lines=lines,
            rows=rows.take(lines),
            vocab_size=vocab_size,
            logits_ready_ns=ready_ns,
            entropy_nats=numbers[ENTROPY],
            varentropy_nats2=numbers[VARENTROPY],
            logit_deviation=_deviations(logits, lines, asked),
            logits=logits,
            numbers=numbers,
            heads=heads,
        )

    def prepare(self, measurement: CompiledMeasurement, temperature: FloatArray) -> CompiledPlan:
        """Returns the filters and the totals of the rows at their temperatures."""
        asked = measurement.rows.derived(filters_asked, measurement.vocab_size)
        inverse = 1.0 / temperature
        if measurement.heads[0].size:
            memory, counts = self._memory.measuring, measurement.heads[2]
            weigh_rows(
                measurement.logits,
                measurement.lines,
                asked,
                inverse,
                memory,
                measurement.numbers,
                counts,
            )
        return CompiledPlan(
            measurement=measurement,
            asked=asked,
            farthest=asked[:, TOP_N_SIGMA] * measurement.logit_deviation,
            inverse_temperature=inverse,
        )

    def pick(self, plan: CompiledPlan, u: FloatArray) -> SelectionResult:
        """Returns the token of each row."""
        measurement, memory = plan.measurement, self._memory
        chosen = np.empty((3, u.size), dtype=np.intp)
        probability = np.empty(u.size)
        unknown = pick_rows(
            measurement.logits,
            measurement.lines,
            plan.asked,
            plan.farthest,
            plan.inverse_temperature,
            u,
            measurement.numbers,
            measurement.heads,
            memory.unit,
            memory.picking,
            chosen,
            probability,
        )
        if unknown:
            for index in np.flatnonzero(chosen[0] == UNKNOWN).tolist():
                choice = self._choose(plan, index, float(u[index]))
                chosen[:, index] = choice.token_id, choice.rank, choice.candidates
                probability[index] = choice.probability
        return SelectionResult(
            token_ids=chosen[0], rank=chosen[1], probability=probability, candidates=chosen[2]
        )

    def _memory_for(self, vocab_size: int) -> RowMemory:
        if self._memory.vocab_size != vocab_size:
            self._memory = RowMemory(vocab_size)
            self._passes = CompiledPasses(vocab_size)
        return self._memory

    def _choose(self, plan: CompiledPlan, index: int, u: float) -> Choice:
        """Returns the token of a row that the loops leave open."""
        measurement = plan.measurement
        numbers, (ids, distance, counts) = measurement.numbers[:, index], measurement.heads
        count = int(counts[index])
        filters = Filters.of(measurement.rows.parameters[index], measurement.vocab_size)
        row = FastRow(
            logits=measurement.logits[measurement.lines[index]],
            maximum=np.float32(numbers[MAXIMUM]),
            filters=filters,
            passes=self._passes,
            head=Head(ids[index, :count], distance[index, :count]),
            deviation=float(measurement.logit_deviation[index]),
            weight=float(numbers[WEIGHT]),
        )
        inverse = float(plan.inverse_temperature[index])
        choice = row.choose(inverse, row.head_ranking, u)
        # The histogram leaves no question open.
        return choice or cast("Choice", row.choose(inverse, row.histogram_ranking, u))


def _empty_heads(count: int, leading: int) -> tuple[IndexArray, Logits, IndexArray]:
    return (
        np.empty((count, leading), dtype=np.intp),
        np.empty((count, leading), dtype=np.float32),
        np.empty(count, dtype=np.intp),
    )


def _settle(logits: Logits, lines: IndexArray, numbers: FloatArray) -> None:
    """Computes those moments again whose rounding is in doubt."""
    for index in np.flatnonzero(numbers[SETTLED] == 0.0).tolist():
        moments = row_moments(distances(logits[lines[index]]))
        numbers[ENTROPY, index], numbers[VARENTROPY, index] = moments


def _deviations(logits: Logits, lines: IndexArray, asked: FloatArray) -> FloatArray:
    """Returns the standard deviations of the logits of rows; NaN where top-n-sigma is off."""
    deviations = np.full(lines.size, math.nan)
    sigmas = asked[lines, TOP_N_SIGMA]
    if sigmas.any():
        for index in np.flatnonzero(sigmas).tolist():
            deviations[index] = compiled_deviation(logits[lines[index]])
    return deviations
