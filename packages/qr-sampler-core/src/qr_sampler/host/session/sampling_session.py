# SPDX-License-Identifier: Apache-2.0
"""The sampling of one engine: it decides rows, forces their tokens and keeps their records."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from qr_sampler.admission.component_checks import check_components
from qr_sampler.components.failure_policy import END_REQUEST, RAISE_ERROR, configured_sources
from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import (
    ComponentError,
    EntropyUnavailableError,
    QRSamplerError,
)
from qr_sampler.health import HealthMonitor, HealthPolicy
from qr_sampler.host.logits import LogitsAccess, NumpyLogits, defect_of
from qr_sampler.host.outcomes import NO_LEDGER, ChosenToken, ForcedEnd, Outcome, UndecidedToken
from qr_sampler.host.row_groups import RowGroup, RowGroups, StepRows
from qr_sampler.host.sequence import TokenSequence
from qr_sampler.host.session.end_log import EarlyEndLog
from qr_sampler.host.session.engine_facts import EngineFacts
from qr_sampler.host.session.session_requests import SessionRequests
from qr_sampler.host.shared_draws import serve_parts
from qr_sampler.records.entries import Entry
from qr_sampler.sampling.columns import StepColumns
from qr_sampler.sampling.commitment import RowContext
from qr_sampler.sampling.pipeline import SamplingPipeline
from qr_sampler.settings import Settings

__all__ = ["SamplingSession"]


class SamplingSession(SessionRequests):
    """Sampling for one engine, whatever engine that is.

    Args:
        facts: The engine's description of itself.
        settings: The deployment's settings; read from the environment if not given.
        access: How logits are read and forced; NumPy arrays of float32 if not given.
        sources: The sources by name, guarded; those that the settings name if not given.
        logger: Where failures are reported.
        make_monitor: Makes the health tests of a source.
        own_sources: Sources by name that the host has made itself, unguarded; they stand in for
            those of the same names that the settings would have made.

    Raises:
        ConfigError: When a setting cannot be served.
        PluginError: When a configured source or its fallback is unknown, contested or broken.
    """

    def __init__(
        self,
        facts: EngineFacts,
        settings: Settings | None = None,
        *,
        access: LogitsAccess | None = None,
        sources: Mapping[str, EntropySource] | None = None,
        logger: logging.Logger | None = None,
        make_monitor: Callable[[HealthPolicy], HealthMonitor] = HealthMonitor,
        own_sources: Mapping[str, EntropySource] | None = None,
    ) -> None:
        settings = Settings.load() if settings is None else settings
        check_components(settings, settings, prefix="QR_")
        self._dropped: deque[DroppedBytes] = deque()
        made = (
            configured_sources(settings, self._dropped.append, make_monitor, own_sources)
            if sources is None
            else dict(sources)
        )
        logger = logger or logging.getLogger("qr_sampler.host")
        super().__init__(facts, settings, made, self._dropped, logger)
        self._early_ends = EarlyEndLog(logger)
        self._access: LogitsAccess = access or NumpyLogits()
        self._pipelines: dict[str, SamplingPipeline] = {}
        self._groups = RowGroups()

    def decide(self, logits: Any, step: StepRows) -> list[Outcome]:
        """Selects and forces the tokens of a step.

        Args:
            logits: Shape ``(R, V)``, modified in place.
            step: The rows to decide.

        Returns:
            The outcome of each row.

        Raises:
            EntropyUnavailableError: If the source fails and the operator chose to stop then.
            ComponentError: When an amplifier or a temperature strategy fails, likewise.
        """
        outcomes: list[Outcome | None] = [None] * len(step.lines)
        self.end_unrecorded(step.sequences)
        try:
            for group in self._groups.of(step):
                began_s = time.monotonic()
                error = self._attempt(logits, step, group, outcomes)
                if error is not None:
                    took_s = time.monotonic() - began_s
                    self._serve_apart(logits, step, group, outcomes, error, took_s)
            if None in outcomes:
                self._do_without(logits, step, outcomes)
        except BaseException:
            # The step is not finished, so what earlier groups have drawn decides no token.
            self.record(_wasted(step, outcomes))
            raise
        return outcomes  # type: ignore[return-value]

    def without_entropy(
        self, logits: Any, line: int, sequence: TokenSequence, position: int
    ) -> Outcome:
        """Returns the outcome of a row that gets no entropy.

        Either there is none for its sequence, or the row has no distribution to draw from. Such a
        row costs no bytes, and ends its request if the operator ends requests without entropy.

        Args:
            logits: Shape ``(R, V)``, the row still as the model made it.
            line: The row.
            sequence: The sequence that gets its token.
            position: Index of that token.
        """
        if sequence.failure:
            return ForcedEnd(sequence.ending_token, position)
        token_id, defect = defect_of(logits, line)
        if self.settings.fallback_mode == END_REQUEST:
            sequence.failure = f"its logits have no finite maximum ({defect})"
            token_id = sequence.ending_token
            self._groups.forget()
        return UndecidedToken(token_id, position, defect)

    def raise_if_told_to(self, error: QRSamplerError) -> None:
        """Raises *error* when the operator chose to stop where tokens cannot be decided.

        Raises:
            QRSamplerError: *error*.
        """
        if self.settings.fallback_mode == RAISE_ERROR:
            raise error

    def end_unrecorded(self, sequences: Iterable[TokenSequence]) -> bool:
        """Ends *sequences* if their tokens might go unrecorded and the operator forbids that.

        :meth:`decide` does so itself.

        Returns:
            Whether any of them was ended.
        """
        if not self._handover.refuses:
            return False
        going_on = [sequence for sequence in sequences if not sequence.failure]
        if not going_on:
            return False
        reason = "the ledger takes no records, and QR_LEDGER_REQUIRED is set"
        self._early_ends.ended(len(set(map(id, going_on))), reason)
        for sequence in going_on:
            sequence.failure = NO_LEDGER
        self._groups.forget()
        return True

    def give_up(self, sequences: Sequence[TokenSequence], error: QRSamplerError) -> None:
        """Ends *sequences*, because the operator accepts only tokens chosen by entropy.

        Args:
            sequences: The sequences that get no more entropy.
            error: What went wrong.

        Raises:
            QRSamplerError: *error*, when the operator chose to stop then.
        """
        self.raise_if_told_to(error)
        self._early_ends.ended(len(set(map(id, sequences))), error)
        for sequence in sequences:
            sequence.failure = str(error)
        self._groups.forget()

    def contexts(self, step: StepRows, group: RowGroup) -> list[RowContext]:
        """Returns the contexts of the tokens that the rows of *group* decide.

        Args:
            step: The rows of a step.
            group: Some of them.
        """
        return [
            RowContext(
                self.run_id,
                step.sequences[index].name,
                step.positions[index],
                step.sequences[index].link,
                step.sequences[index].request_key,
            )
            for index in group.indices
        ]

    def _serve_apart(
        self,
        logits: Any,
        step: StepRows,
        group: RowGroup,
        outcomes: list[Outcome | None],
        error: QRSamplerError,
        took_s: float,
    ) -> None:
        """Decides the rows of *group* one by one, since together they could not be decided.

        Args:
            logits: Shape ``(R, V)``.
            step: The rows of the step.
            group: Those that share the draw which failed.
            outcomes: Filled in.
            error: Why it failed.
            took_s: How many seconds it took.
        """
        self.raise_if_told_to(error)

        def attempt(part: RowGroup) -> QRSamplerError | None:
            failure = self._attempt(logits, step, part, outcomes)
            if failure is not None:
                self.raise_if_told_to(failure)
            return failure

        def give_up(part: RowGroup, failure: QRSamplerError) -> None:
            self.give_up([step.sequences[index] for index in part.indices], failure)

        serve_parts(group.apart(step.sequences), error, took_s, attempt, give_up)

    def _attempt(
        self, logits: Any, step: StepRows, group: RowGroup, outcomes: list[Outcome | None]
    ) -> QRSamplerError | None:
        """Decides the rows of *group* with one draw; returns why that has failed, if it has."""
        indices, sequences, positions = group.indices, step.sequences, step.positions
        rows = group.rows.with_running_entropy(
            [sequences[index].running_entropy.value for index in indices]
        )
        lines = step.lines
        if len(indices) < len(lines):
            lines = [lines[index] for index in indices]
        pipeline = self._pipelines.get(group.source) or self._new_pipeline(group.source, logits)
        contexts = self.contexts(step, group) if pipeline.reads_contexts else None
        try:
            result = self._access.sample(pipeline, logits, lines, rows, contexts)
        except (EntropyUnavailableError, ComponentError) as error:
            return error
        if result is not None:
            columns = StepColumns(result)
            for decided, line in enumerate(result.plan.lines.tolist()):
                index = indices[line]
                outcomes[index] = ChosenToken(columns, decided, positions[index])
        return None

    def _do_without(self, logits: Any, step: StepRows, outcomes: list[Outcome | None]) -> None:
        """Forces the rows that no draw has decided and fills in their *outcomes*."""
        left = [index for index, outcome in enumerate(outcomes) if outcome is None]
        forced = [
            self.without_entropy(
                logits, step.lines[index], step.sequences[index], step.positions[index]
            )
            for index in left
        ]
        lines = [step.lines[index] for index in left]
        self._access.force(logits, lines, [outcome.token_id for outcome in forced])
        for index, outcome in zip(left, forced, strict=True):
            outcomes[index] = outcome

    def _new_pipeline(self, source: str, logits: Any) -> SamplingPipeline:
        """Returns a new pipeline of *source*; only now is the device of the logits known."""
        # Each gets its own selector, which may keep the outcome of its latest step in buffers.
        pipeline = self._access.pipeline(
            logits, self.settings, self._sources[source], self._dropped.append
        )
        self._pipelines[source] = pipeline
        return pipeline


def _wasted(step: StepRows, outcomes: Sequence[Outcome | None]) -> list[Entry]:
    """Returns the entries of the rows of a step that is not finished."""
    return [
        entry
        for sequence, outcome in zip(step.sequences, outcomes, strict=True)
        if outcome is not None
        for entry in sequence.wasted(outcome, "step_failed")
    ]
