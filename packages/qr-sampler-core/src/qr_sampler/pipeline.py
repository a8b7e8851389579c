# SPDX-License-Identifier: Apache-2.0
"""One sampling step: logits in, tokens and their provenance out."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from qr_sampler._typing import ByteBlocks, FloatArray, IndexArray, Logits
from qr_sampler.amplification.base import AmplificationResult
from qr_sampler.components import amplifier_named, strategy_named
from qr_sampler.entropy.draw import EntropyDraw
from qr_sampler.entropy.source import EntropySource
from qr_sampler.rows import Rows
from qr_sampler.selection.selector import SelectionPlan, SelectionResult, TokenSelector
from qr_sampler.settings import Settings
from qr_sampler.temperature.base import (
    LogitStatistics,
    TemperatureResult,
    shannon_entropy_nats,
)

__all__ = ["SamplingPipeline", "StepPlan", "StepResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """The part of a step that needs no entropy. Its rows are those that can be decided."""

    lines: IndexArray
    """Shape ``(D,)``, indices of the decidable rows among the B rows of the step."""
    rows: Rows
    """Parameters of the decidable rows."""
    temperature: TemperatureResult
    """Temperatures and entropies of the decidable rows."""
    selection: SelectionPlan
    """Order and masses of the decidable rows."""
    logits_ready_ns: int
    """``time.monotonic_ns()`` when the logits were known to be complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The outcome of one step. Arrays have one entry per decided row."""

    plan: StepPlan
    """What was decided on."""
    draw: EntropyDraw
    """The one draw that served all rows."""
    amplification: AmplificationResult
    """u and the amplifier's statistic."""
    block_bytes: IndexArray
    """Number of bytes that decided each token."""
    block_sum: IndexArray
    """Sum of those bytes."""
    selection: SelectionResult
    """Tokens, ranks and probabilities."""


class SamplingPipeline:
    """Temperature, one draw, amplification and selection for a batch of rows.

    The steps are callable one by one, so that an engine can put its logits-ready barrier between
    :meth:`prepare` and :meth:`complete`: no byte is asked for before the latter.

    Args:
        settings: The deployment's settings.
        source: Where the bytes come from, usually wrapped in a fallback.
    """

    def __init__(self, settings: Settings, source: EntropySource) -> None:
        self._settings = settings
        self.source = source
        self._selector = TokenSelector()

    def sample(self, logits: Logits, rows: Rows) -> StepResult | None:
        """Returns the tokens of a batch, or ``None`` when no row can be decided.

        Args:
            logits: Shape ``(B, V)``, float32, complete. Not modified.
            rows: The parameters of the B rows.

        Raises:
            EntropyUnavailableError: When the source cannot deliver.
        """
        plan = self.prepare(logits, rows)
        return self.complete(plan) if plan.lines.size else None

    def prepare(
        self, logits: Logits, rows: Rows, *, logits_ready_ns: int | None = None
    ) -> StepPlan:
        """Returns everything that can be computed before the entropy is drawn.

        A row without a finite maximum (all tokens masked, or a NaN or +inf among the logits) has no
        distribution to draw from and is left out of the plan.

        Args:
            logits: Shape ``(B, V)``, float32, complete.
            rows: The parameters of the B rows.
            logits_ready_ns: When the logits were complete; now, if not given.
        """
        ready_ns = time.monotonic_ns() if logits_ready_ns is None else logits_ready_ns
        lines = np.flatnonzero(np.isfinite(logits.max(axis=1)))
        if lines.size < len(rows):
            logits, rows = logits[lines], rows.take(lines)
        temperature = self._temperatures(logits, rows)
        selection = self._selector.prepare(logits, temperature.temperature, rows)
        return StepPlan(
            lines=lines,
            rows=rows,
            temperature=temperature,
            selection=selection,
            logits_ready_ns=ready_ns,
        )

    def complete(self, plan: StepPlan) -> StepResult:
        """Returns the tokens: draws once for all rows, amplifies and selects.

        Raises:
            EntropyUnavailableError: When the source cannot deliver.
        """
        sizes = plan.rows.column("sample_count").astype(np.intp)
        draw = self.source.draw(int(sizes.sum()))
        data = np.frombuffer(draw.data, dtype=np.uint8)
        amplification = self._amplify(data, sizes, plan.rows)
        return StepResult(
            plan=plan,
            draw=draw,
            amplification=amplification,
            block_bytes=sizes,
            block_sum=np.add.reduceat(data, _starts(sizes), dtype=np.intp),
            selection=self._selector.pick(plan.selection, amplification.u),
        )

    def _temperatures(self, logits: Logits, rows: Rows) -> TemperatureResult:
        entropy = shannon_entropy_nats(logits)
        temperature = np.empty(len(rows), dtype=np.float64)
        for (name,), lines in rows.groups("temperature_strategy").items():
            statistics = LogitStatistics(entropy_nats=entropy[lines], vocab_size=logits.shape[1])
            strategy = strategy_named(str(name))
            temperature[lines] = strategy.temperatures(statistics, rows.take(lines))
        return TemperatureResult(temperature=temperature, entropy_nats=entropy)

    def _amplify(self, data: ByteBlocks, sizes: IndexArray, rows: Rows) -> AmplificationResult:
        """Cuts *data* into one block per row, in row order, and amplifies equal sizes together."""
        starts = _starts(sizes)
        u: FloatArray = np.empty(len(rows), dtype=np.float64)
        statistic: FloatArray = np.empty(len(rows), dtype=np.float64)
        for (name, _), lines in rows.groups("signal_amplifier_type", "sample_count").items():
            blocks = data[starts[lines, np.newaxis] + np.arange(sizes[lines[0]])]
            result = amplifier_named(str(name), self._settings).amplify(blocks)
            u[lines], statistic[lines] = result.u, result.statistic
        return AmplificationResult(u=u, statistic=statistic)


def _starts(sizes: IndexArray) -> IndexArray:
    """Returns where each of the consecutive blocks of *sizes* bytes begins."""
    return np.cumsum(sizes) - sizes
