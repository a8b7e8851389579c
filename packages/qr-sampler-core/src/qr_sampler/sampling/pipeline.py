# SPDX-License-Identifier: Apache-2.0
"""One sampling step: logits in, tokens and their provenance out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from qr_sampler._typing import ByteBlocks, FloatArray, IndexArray, Logits
from qr_sampler.amplification.base import AmplificationResult, SignalAmplifier
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.groups import AmplifiedRows, amplify_groups
from qr_sampler.components.instances import amplifier_named, strategy_named
from qr_sampler.entropy.draw import EntropyDraw
from qr_sampler.entropy.guard import DroppedBytes
from qr_sampler.entropy.source import EntropySource
from qr_sampler.rows import Rows
from qr_sampler.sampling.commitment import RowContext, row_digest, step_commitment
from qr_sampler.selection.fast import FastSelector
from qr_sampler.selection.selector import Measurement, SelectionResult, Selector
from qr_sampler.settings import Settings
from qr_sampler.temperature.base import (
    LogitStatistics,
    TemperatureResult,
    TemperatureStrategy,
    rounded,
)

__all__ = ["SamplingPipeline", "StepPlan", "StepResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """The part of a step that needs no entropy. Its rows are those that can be decided."""

    measurement: Measurement
    """Which rows are decidable, and their statistics."""
    temperature: TemperatureResult
    """Temperatures and entropies of the decidable rows."""
    selection: Any
    """The selector's own plan for the decidable rows."""

    def summary(self) -> StepPlan:
        """Returns the plan without what only the selector needs, so that the logits can go."""
        return StepPlan(
            measurement=self.measurement.summary(), temperature=self.temperature, selection=None
        )

    @property
    def lines(self) -> IndexArray:
        """Shape ``(D,)``, indices of the decidable rows among the B rows of the step."""
        return self.measurement.lines

    @property
    def rows(self) -> Rows:
        """Parameters of the decidable rows."""
        return self.measurement.rows

    @property
    def logits_ready_ns(self) -> int:
        """``time.monotonic_ns()`` when the logits were known to be complete."""
        return self.measurement.logits_ready_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The outcome of one step. Arrays have one entry per decided row."""

    plan: StepPlan
    """What was decided on; its selection is ``None`` by now."""
    draw: EntropyDraw
    """The one draw that served all rows, without its bytes: they have decided and are forgotten."""
    draw_bytes: int
    """How many bytes it brought."""
    amplification: AmplificationResult
    """u and the amplifier's statistic."""
    block_bytes: IndexArray
    """Number of bytes that decided each token."""
    block_sum: IndexArray
    """Sum of those bytes."""
    block_ones: IndexArray
    """Number of one bits among those bytes."""
    selection: SelectionResult
    """Tokens, ranks and probabilities."""
    row_digests: tuple[bytes, ...] = ()
    """What the source was told about each row, see :mod:`qr_sampler.sampling.commitment`; empty
    when it was told nothing."""
    commitment: bytes = b""
    """The digest of them all, which travelled with the request."""


class SamplingPipeline:
    """Temperature, one draw, amplification and selection for a batch of rows.

    The steps are callable one by one, so that an engine can put its logits-ready barrier between
    :meth:`prepare` and :meth:`complete`: no byte is asked for before the latter.

    Args:
        settings: The deployment's settings.
        source: Where the bytes come from, usually wrapped in a fallback.
        selector: Selects the tokens; :class:`FastSelector` if not given.
        count: Counts the bytes and bits of blocks.
        on_dropped: Is told of bytes that were drawn and decide nothing, because what comes after
            the draw fails.
    """

    def __init__(
        self,
        settings: Settings,
        source: EntropySource,
        selector: Selector[Any, Any] | None = None,
        count: Callable[[ByteBlocks], BlockCounts] = BlockCounts,
        on_dropped: Callable[[DroppedBytes], object] | None = None,
    ) -> None:
        self._settings = settings
        self.source = source
        self._amplifiers: dict[str, SignalAmplifier] = {}
        self.selector: Selector[Any, Any] = FastSelector() if selector is None else selector
        self._count = count
        self._on_dropped = on_dropped

    def sample(self, logits: Logits, rows: Rows) -> StepResult | None:
        """Returns the tokens of a batch, or ``None`` when no row can be decided.

        Args:
            logits: Shape ``(B, V)``, float32, complete. Not modified.
            rows: The parameters of the B rows.

        Raises:
            EntropyUnavailableError: When the source cannot deliver.
            ComponentError: When an amplifier or a temperature strategy fails.
        """
        plan = self.prepare(logits, rows)
        return self.complete(plan) if plan.lines.size else None

    def prepare(self, logits: Any, rows: Rows) -> StepPlan:
        """Returns everything that can be computed before the entropy is drawn.

        A row without a finite maximum (all tokens masked, or a NaN or +inf among the logits) has no
        distribution to draw from and is left out of the plan.

        Args:
            logits: Shape ``(B, V)``, float32, of the kind that the selector takes. They must stay
                unchanged until :meth:`complete` has returned.
            rows: The parameters of the B rows.

        Raises:
            ComponentError: When a temperature strategy fails.
        """
        known = self._known_temperatures(rows)
        measurement = _after_predecessors(
            self.selector.measure(logits, rows, known, rows.derived(_settle))
        )
        temperature = self._temperatures(measurement, known[measurement.lines])
        return StepPlan(
            measurement=measurement,
            temperature=TemperatureResult(
                temperature=temperature,
                entropy_nats=measurement.entropy_nats,
                varentropy_nats2=measurement.varentropy_nats2,
            ),
            selection=self.selector.prepare(measurement, temperature),
        )

    def complete(self, plan: StepPlan, contexts: Sequence[RowContext] | None = None) -> StepResult:
        """Returns the tokens: draws once for all rows, amplifies and selects.

        Args:
            plan: What :meth:`prepare` returned.
            contexts: Which tokens the B rows of the step are going to decide; a source that takes a
                commitment is told their digest with the request.

        Raises:
            EntropyUnavailableError: When the source cannot deliver.
            ComponentError: When an amplifier fails; the bytes are dropped.
        """
        sizes = plan.rows.derived(_block_sizes)
        digests = _row_digests(plan, contexts) if contexts and self.source.commits else ()
        commitment = step_commitment(digests) if digests else b""
        draw = self._draw(int(sizes.sum()), commitment)
        try:
            amplified = self._amplify(draw, sizes, plan.rows)
            selection = self.selector.pick(plan.selection, amplified.amplification.u)
        except BaseException:
            self._drop(draw)
            raise
        return StepResult(
            plan=plan.summary(),
            draw=draw.without_data(),
            draw_bytes=len(draw.data),
            amplification=amplified.amplification,
            block_bytes=sizes,
            block_sum=amplified.sums,
            block_ones=amplified.ones,
            selection=selection,
            row_digests=digests,
            commitment=commitment,
        )

    def _draw(self, n: int, commitment: bytes) -> EntropyDraw:
        return self.source.committed_draw(n, commitment) if commitment else self.source.draw(n)

    def _drop(self, draw: EntropyDraw) -> None:
        if self._on_dropped is not None:
            count, now_ns = len(draw.data), time.time_ns()
            self._on_dropped(DroppedBytes(draw.source, count, "unfit", now_ns))

    def _known_temperatures(self, rows: Rows) -> FloatArray:
        """Returns the temperatures that do not depend on the logits; NaN for the other rows."""
        temperature = np.full(len(rows), np.nan)
        for strategy, lines in rows.derived(_strategies):
            if not strategy.reads:
                nothing = _nothing_known(lines.size)
                temperature[lines] = strategy.temperatures(nothing, rows.take(lines))
        return temperature

    def _temperatures(self, measurement: Measurement, known: FloatArray) -> FloatArray:
        """Returns *known*, completed from the statistics. All shapes ``(D,)``."""
        temperature: FloatArray = known.copy()
        rows = measurement.rows
        for strategy, lines in rows.derived(_strategies):
            if strategy.reads:
                statistics = _statistics(measurement, lines)
                temperature[lines] = strategy.temperatures(statistics, rows.take(lines))
        return temperature

    def _amplify(self, draw: EntropyDraw, sizes: IndexArray, rows: Rows) -> AmplifiedRows:
        """Cuts *draw* into one block per row, in row order, and amplifies equal sizes together.

        A baseline describes the configured device, so it does not apply to a fallback's bytes.
        """
        groups = []
        for (name, _), lines in rows.groups("signal_amplifier_type", "sample_count").items():
            amplifier = self._amplifier(str(name))
            groups.append((amplifier.without_baseline() if draw.fallback else amplifier, lines))
        data = np.frombuffer(draw.data, dtype=np.uint8)
        return amplify_groups(data, sizes, groups, self._count)

    def _amplifier(self, name: str) -> SignalAmplifier:
        if name not in self._amplifiers:
            self._amplifiers[name] = amplifier_named(name, self._settings)
        return self._amplifiers[name]


def _after_predecessors(measurement: Measurement) -> Measurement:
    """Returns *measurement* with the running means of rows that follow others in the same step."""
    if not measurement.rows.follow_each_other:
        return measurement
    entropy_nats = rounded(measurement.entropy_nats)
    return replace(measurement, rows=measurement.rows.after_predecessors(entropy_nats))


def _row_digests(plan: StepPlan, contexts: Sequence[RowContext]) -> tuple[bytes, ...]:
    """Returns the digest of each decidable row."""
    settled = plan.temperature
    numbers = zip(
        plan.lines.tolist(),
        settled.temperature.tolist(),
        settled.entropy_nats.tolist(),
        settled.varentropy_nats2.tolist(),
        strict=True,
    )
    return tuple(
        row_digest(
            contexts[line],
            temperature=temperature,
            entropy_nats=entropy_nats,
            varentropy_nats2=varentropy_nats2,
        )
        for line, temperature, entropy_nats, varentropy_nats2 in numbers
    )


def _block_sizes(rows: Rows) -> IndexArray:
    """Returns how many bytes decide each row."""
    return rows.column("sample_count").astype(np.intp)


def _strategies(rows: Rows) -> list[tuple[TemperatureStrategy, IndexArray]]:
    """Returns the temperature strategies in use, each with the rows that it serves."""
    groups = rows.groups("temperature_strategy")
    return [(strategy_named(str(name)), lines) for (name,), lines in groups.items()]


def _settle(rows: Rows) -> IndexArray:
    """Returns how many of entropy and varentropy the temperature of each row depends on."""
    settle = np.zeros(len(rows), dtype=np.intp)
    for strategy, lines in rows.derived(_strategies):
        reads = strategy.reads
        settle[lines] = 2 if "varentropy_nats2" in reads else min(len(reads), 1)
    return settle


@lru_cache(maxsize=64)
def _nothing_known(count: int) -> LogitStatistics:
    """Returns the statistics that a strategy gets which does not read them."""
    nothing = np.full(count, np.nan)
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
