# SPDX-License-Identifier: Apache-2.0
"""The part of a sampling step that needs no randomness, and can reach none.

Nothing here knows of a source, so what is planned cannot have drawn: the bytes of a step are asked
for only once a plan exists, and so after the logits are complete.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from qr_sampler.arrays import FloatArray, IndexArray
from qr_sampler.components.strategies import strategy_named
from qr_sampler.rows import RowParameters, Rows
from qr_sampler.selection.fast.selector import FastSelector
from qr_sampler.selection.selector import Measurement, Selector
from qr_sampler.temperature.base import (
    LogitStatistics,
    TemperatureResult,
    TemperatureStrategy,
    rounded,
)

__all__ = ["StepPlan", "StepPlanner"]


@dataclass(slots=True, kw_only=True)
class StepPlan:
    """The part of a step that needs no entropy. Its D rows are those that can be decided."""

    lines: IndexArray
    """Shape ``(D,)``, indices of the decidable rows among the B rows of the step."""
    rows: Rows
    """Parameters of the decidable rows."""
    logits_ready_ns: int
    """``time.monotonic_ns()`` when the logits were known to be complete."""
    temperature: TemperatureResult
    """Temperatures and entropies of the decidable rows."""
    selection: Any
    """The selector's own plan for the decidable rows, which may hold on to the logits; ``None``
    once the step is complete."""


class StepPlanner:
    """Statistics, temperatures, filters and masses of a batch of rows.

    Args:
        selector: Measures and orders the tokens; :class:`FastSelector` if not given.
    """

    def __init__(self, selector: Selector[Any, Any] | None = None) -> None:
        self.selector: Selector[Any, Any] = FastSelector() if selector is None else selector

    def prepare(self, logits: Any, rows: Rows) -> StepPlan:
        """Returns everything that can be computed before the entropy is drawn.

        A row without a finite maximum (all tokens masked, or a NaN or +inf among the logits) has no
        distribution to draw from and is left out of the plan.

        Args:
            logits: Shape ``(B, V)``, float32, of the kind that the selector takes. They must stay
                unchanged until the tokens are selected.
            rows: The parameters of the B rows.

        Raises:
            ComponentError: When a temperature strategy fails.
        """
        strategies = rows.derived(_strategies)
        known = strategies.constant
        if known is None:
            known = _known_temperatures(strategies, rows)
        measurement = self.selector.measure(logits, rows, known, strategies.settle)
        if rows.follow_each_other:
            measurement = _after_predecessors(measurement)
        lines = measurement.lines
        if strategies.reading or lines.size < known.size:
            temperature = _temperatures(measurement, known[lines])
        else:
            temperature = known
        return StepPlan(
            lines=lines,
            rows=measurement.rows,
            logits_ready_ns=measurement.logits_ready_ns,
            temperature=TemperatureResult(
                temperature=temperature,
                entropy_nats=measurement.entropy_nats,
                varentropy_nats2=measurement.varentropy_nats2,
            ),
            selection=self.selector.prepare(measurement, temperature),
        )


class _Strategies(NamedTuple):
    """The temperature strategies of a batch, each with the rows that it serves."""

    blind: list[tuple[TemperatureStrategy, IndexArray]]
    """Those that read no statistics."""
    reading: list[tuple[TemperatureStrategy, IndexArray]]
    """Those that do."""
    settle: IndexArray
    """Shape ``(B,)``, how many of entropy and varentropy the temperature of each row depends on."""
    constant: FloatArray | None
    """Shape ``(B,)``, the temperatures, if they stay the same while the batch does."""


def _strategies(rows: RowParameters) -> _Strategies:
    groups = rows.groups("temperature_strategy")
    named = [(strategy_named(str(name)), lines) for (name,), lines in groups.items()]
    settle = np.zeros(len(rows), dtype=np.intp)
    for strategy, lines in named:
        reads = strategy.reads
        settle[lines] = 2 if "varentropy_nats2" in reads else min(len(reads), 1)
    settle.flags.writeable = False
    found = _Strategies(
        blind=[pair for pair in named if not pair[0].reads],
        reading=[pair for pair in named if pair[0].reads],
        settle=settle,
        constant=None,
    )
    if not all(strategy.constant for strategy, _ in named):
        return found
    constant = np.array(_known_temperatures(found, Rows(rows.parameters)))
    constant.flags.writeable = False
    return found._replace(constant=constant)


def _known_temperatures(strategies: _Strategies, rows: Rows) -> FloatArray:
    """Returns the temperatures that do not depend on the logits; NaN for the other rows."""
    if not strategies.reading and len(strategies.blind) == 1:
        return strategies.blind[0][0].temperatures(_nothing_known(strategies.settle.size), rows)
    temperature = np.full(len(rows), np.nan)
    for strategy, lines in strategies.blind:
        temperature[lines] = strategy.temperatures(_nothing_known(lines.size), rows.take(lines))
    return temperature


def _temperatures(measurement: Measurement, known: FloatArray) -> FloatArray:
    """Returns *known*, a copy, completed from the statistics. All shapes ``(D,)``."""
    rows = measurement.rows
    for strategy, lines in rows.derived(_strategies).reading:
        known[lines] = strategy.temperatures(_statistics(measurement, lines), rows.take(lines))
    return known


def _after_predecessors(measurement: Measurement) -> Measurement:
    """Returns *measurement* with the running means of rows that follow others in the same step."""
    entropy_nats = rounded(measurement.entropy_nats)
    return replace(measurement, rows=measurement.rows.after_predecessors(entropy_nats))


@lru_cache(maxsize=64)
def _nothing_known(count: int) -> LogitStatistics:
    """Returns the statistics that a strategy gets which does not read them."""
    nothing = np.full(count, np.nan)
    # It serves many steps.
    nothing.flags.writeable = False
    return LogitStatistics(
        entropy_nats=nothing, varentropy_nats2=nothing, logit_deviation=nothing, vocab_size=1
    )


def _statistics(measurement: Measurement, lines: IndexArray) -> LogitStatistics:
    """Returns what temperature strategies may know of the rows at *lines*."""
    return LogitStatistics(
        entropy_nats=rounded(measurement.entropy_nats[lines]),
        varentropy_nats2=rounded(measurement.varentropy_nats2[lines]),
        logit_deviation=measurement.logit_deviation[lines],
        vocab_size=measurement.vocab_size,
    )
