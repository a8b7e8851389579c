# SPDX-License-Identifier: Apache-2.0
"""The selector for logits in the memory of the host: a batch takes three compiled calls."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from qr_sampler.arrays import Distances, FloatArray, IndexArray, Logits
from qr_sampler.rows import Rows
from qr_sampler.selection.fast.bins import FEW
from qr_sampler.selection.fast.candidates import Choice
from qr_sampler.selection.fast.head import Head
from qr_sampler.selection.fast.row import FastRow
from qr_sampler.selection.fast.row_laws import HostLaws, RowLaw
from qr_sampler.selection.filters import Filters
from qr_sampler.selection.masses import unit_exponent
from qr_sampler.selection.selector import Measurement, SelectionResult, Selector
from qr_sampler.selection.statistics import row_moments
from qr_sampler_accel.host.arithmetic.statistics import compiled_deviation
from qr_sampler_accel.host.asked import TOP_N_SIGMA, Asked, asked_of
from qr_sampler_accel.host.from_bins import scratch_size
from qr_sampler_accel.host.from_head import UNKNOWN
from qr_sampler_accel.host.leading import MOST_LEADING
from qr_sampler_accel.host.passes import CompiledPasses
from qr_sampler_accel.host.row_loops import (
    ENTROPY,
    MAXIMUM,
    NUMBERS,
    SETTLED,
    VARENTROPY,
    WEIGHT,
    WEIGHT_AT_T,
    measure_few_rows,
    measure_rows,
    pick_few_rows,
    pick_rows,
    weigh_rows,
)

__all__ = ["CompiledMeasurement", "CompiledPlan", "CompiledSelector"]


FEW_SCRATCH: Final = 3
"""Working memory for each of few tokens: a mass, or what it takes to settle their moments."""


class Heads(NamedTuple):
    """The leading tokens of D rows, in rank order."""

    token_ids: NDArray[np.int32]
    """Shape ``(D, N)``."""
    distance: Distances
    """Shape ``(D, N)``."""
    counts: IndexArray
    """How many of the N places are taken. Shape ``(D,)``."""

    @classmethod
    def empty(cls, count: int, leading: int) -> Heads:
        """Returns room for *leading* tokens of *count* rows."""
        return cls(
            np.empty((count, leading), dtype=np.int32),
            np.empty((count, leading), dtype=np.float32),
            np.empty(count, dtype=np.intp),
        )

    def take(self, lines: IndexArray) -> Heads:
        """Returns those of some rows."""
        return Heads(self.token_ids[lines], self.distance[lines], self.counts[lines])


@dataclass(slots=True, kw_only=True)
class CompiledMeasurement(Measurement):
    """The statistics together with the rows."""

    logits: Logits
    """Shape ``(B, V)``."""
    asked: Asked
    """What the decidable rows ask for."""
    numbers: FloatArray
    """What was measured of the decidable rows. Shape ``(NUMBERS, D)``."""
    heads: Heads
    """The leading tokens of each."""
    known: FloatArray
    """The temperatures that were known by then; NaN where they were not. Shape ``(B,)``."""
    inverse: FloatArray
    """1 / T of those. Shape ``(B,)``."""


class CompiledPlan(NamedTuple):
    """What can be said about D rows before u is known."""

    measurement: CompiledMeasurement
    """The rows."""
    inverse_temperature: FloatArray
    """1 / T. Shape ``(D,)``."""


class CompiledSelector(Selector[CompiledMeasurement, CompiledPlan]):
    """Selects as :class:`~qr_sampler.FastSelector` does, in compiled loops over the whole batch.

    Rows with typical-p, which the loops leave open, are worked on one by one.
    The first call waits for the compiler, unless :func:`~qr_sampler_accel.warm_up` has been called
    or an earlier process has kept its code.
    """

    def __init__(self) -> None:
        self._passes: CompiledPasses | None = None
        self._scratch, self._scratch_for = np.empty(0), 0

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
        flags = logits.flags
        if not (flags.c_contiguous and flags.writeable):
            # The loops would be compiled anew for every kind but that of their own memory.
            logits = logits.copy(order="C")
        room = self._scratch if vocab_size == self._scratch_for else self._take_room(vocab_size)
        asked = rows.derived(asked_of, vocab_size)
        if settle is None:
            settle = np.where(np.isnan(temperature), 2, 0)
        inverse, numbers = 1.0 / temperature, np.empty((NUMBERS, count))
        if vocab_size <= FEW:
            heads = _no_heads(count)
            decidable, unsettled = measure_few_rows(logits, settle, numbers, room)
        else:
            heads = Heads.empty(count, MOST_LEADING)
            decidable, unsettled = measure_rows(
                logits, asked.filters, settle, inverse, numbers, *heads
            )
        lines = asked.lines
        if decidable < count:
            lines = np.flatnonzero(np.isfinite(numbers[MAXIMUM]))
            # As those of a whole batch are: another type would be compiled anew.
            lines.flags.writeable = False
            # Consecutive, as the loops expect it.
            numbers = numbers.take(lines, axis=1)
            heads = heads.take(lines)
            rows = rows.take(lines)
            asked = rows.derived(asked_of, vocab_size)
        if unsettled:
            _settle(logits, lines, numbers, room)
        return CompiledMeasurement(
            lines=lines,
            rows=rows,
            vocab_size=vocab_size,
            logits_ready_ns=ready_ns,
            entropy_nats=numbers[ENTROPY],
            varentropy_nats2=numbers[VARENTROPY],
            logit_deviation=(
                _deviations(logits, lines, asked) if asked.asks_deviation else asked.deviations
            ),
            logits=logits,
            asked=asked,
            numbers=numbers,
            heads=heads,
            known=temperature,
            inverse=inverse,
        )

    def prepare(self, measurement: CompiledMeasurement, temperature: FloatArray) -> CompiledPlan:
        """Returns the totals of the rows at their temperatures."""
        if temperature is measurement.known and not temperature.flags.writeable:
            # They are what they were, and all weights that are needed have been taken.
            return CompiledPlan(measurement, measurement.inverse)
        inverse = 1.0 / temperature
        if measurement.heads.token_ids.size:
            # Weights that were taken at another temperature are none.
            changed = inverse != measurement.inverse[measurement.lines]
            measurement.numbers[WEIGHT_AT_T, changed] = np.nan
            weigh_rows(
                measurement.logits,
                measurement.lines,
                measurement.asked.filters,
                inverse,
                measurement.numbers,
                measurement.heads.counts,
            )
        return CompiledPlan(measurement, inverse)

    def pick(self, plan: CompiledPlan, u: FloatArray) -> SelectionResult:
        """Returns the token of each row."""
        measurement = plan.measurement
        chosen, probability = np.empty((3, u.size), dtype=np.intp), np.empty(u.size)
        vocab_size = measurement.vocab_size
        room = self._scratch if vocab_size == self._scratch_for else self._take_room(vocab_size)
        rows = (
            measurement.logits,
            measurement.lines,
            measurement.asked.filters,
            measurement.logit_deviation,
            plan.inverse_temperature,
            # Writable, as above.
            u if u.flags.writeable else u.copy(),
            measurement.numbers,
        )
        unit = 2.0 ** unit_exponent(vocab_size)
        if vocab_size <= FEW:
            unknown = pick_few_rows(*rows, unit, room, chosen, probability)
        else:
            heads = tuple(measurement.heads)
            unknown = pick_rows(*rows, heads, unit, room, chosen, probability)
        if unknown:
            for index in np.flatnonzero(chosen[0] == UNKNOWN).tolist():
                choice = self._choose(plan, index, float(u[index]))
                chosen[:, index] = choice.token_id, choice.rank, choice.candidates
                probability[index] = choice.probability
        return SelectionResult(
            token_ids=chosen[0], rank=chosen[1], probability=probability, candidates=chosen[2]
        )

    def laws(self, plan: CompiledPlan) -> HostLaws:
        """Returns the laws of the rows."""
        inverse = plan.inverse_temperature.tolist()
        return HostLaws(
            [RowLaw(self._row(plan, index), value, None) for index, value in enumerate(inverse)]
        )

    def _take_room(self, vocab_size: int) -> FloatArray:
        """Takes working memory for rows of V tokens."""
        self._scratch = np.empty(
            FEW_SCRATCH * vocab_size if vocab_size <= FEW else scratch_size(vocab_size)
        )
        self._scratch_for = vocab_size
        return self._scratch

    def _choose(self, plan: CompiledPlan, index: int, u: float) -> Choice:
        """Returns the token of a row that the loops leave open."""
        row, inverse = self._row(plan, index), float(plan.inverse_temperature[index])
        choice = row.choose(inverse, row.head_ranking, u)
        # The histogram leaves no question open.
        return choice or cast("Choice", row.choose(inverse, row.histogram_ranking, u))

    def _row(self, plan: CompiledPlan, index: int) -> FastRow:
        """Returns one of the decidable rows, for passes of its own."""
        measurement = plan.measurement
        numbers, heads = measurement.numbers[:, index], measurement.heads
        count, vocab_size = int(heads.counts[index]), measurement.vocab_size
        if self._passes is None or self._passes.vocab_size != vocab_size:
            self._passes = CompiledPasses(vocab_size)
        return FastRow(
            logits=measurement.logits[measurement.lines[index]],
            maximum=np.float32(numbers[MAXIMUM]),
            filters=Filters.of(measurement.rows.parameters[index], vocab_size),
            passes=self._passes,
            # Copies: loops are compiled for arrays that can be written to, and heads may be kept.
            head=Head(
                heads.token_ids[index, :count].astype(np.intp),
                heads.distance[index, :count].copy(),
            ),
            deviation=float(measurement.logit_deviation[index]),
            weight=float(numbers[WEIGHT]),
        )


@lru_cache(maxsize=64)
def _no_heads(count: int) -> Heads:
    """Returns no leading tokens, for rows so short that all of their tokens are looked at."""
    heads = Heads.empty(count, 0)
    heads.counts[:] = 0
    for array in heads:
        array.flags.writeable = False
    return heads


def _settle(logits: Logits, lines: IndexArray, numbers: FloatArray, scratch: FloatArray) -> None:
    """Computes those moments again whose rounding is in doubt."""
    size = logits.shape[1]
    spare, distance = scratch[: 2 * size].reshape(2, size), scratch[2 * size :].view(np.float32)
    for index in np.flatnonzero(numbers[SETTLED] == 0.0).tolist():
        row = logits[lines[index]]
        with np.errstate(over="ignore"):
            np.subtract(row, row.max(), out=distance[:size])
        moments = row_moments(distance[:size], spare)
        numbers[ENTROPY, index], numbers[VARENTROPY, index] = moments


def _deviations(logits: Logits, lines: IndexArray, asked: Asked) -> FloatArray:
    """Returns the standard deviations of the logits of rows; NaN where top-n-sigma is off."""
    deviations: FloatArray = asked.deviations.copy()
    for index in np.flatnonzero(asked.filters[:, TOP_N_SIGMA]).tolist():
        deviations[index] = compiled_deviation(logits[lines[index]])
    # As those that nobody asks for.
    deviations.flags.writeable = False
    return deviations
