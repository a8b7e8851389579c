# SPDX-License-Identifier: Apache-2.0
"""The sampling of one engine: it decides rows, forces their tokens and keeps their records."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from qr_sampler.admission.component_checks import check_components
from qr_sampler.admission.overrides import FOLLOW_KEY, EngineFields, RequestOptions, resolve_request
from qr_sampler.components.failure_policy import END_REQUEST, RAISE_ERROR, configured_sources
from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.entropy.fallback import primary_guard
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import (
    ComponentError,
    ConfigError,
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
from qr_sampler.host.session.session_records import SessionRecords
from qr_sampler.host.shared_draws import serve_parts
from qr_sampler.host.stop_conditions import StopConditions
from qr_sampler.records.accounting import bypass_record
from qr_sampler.records.entries import Entry, RequestFacts
from qr_sampler.sampling.columns import StepColumns
from qr_sampler.sampling.commitment import RowContext
from qr_sampler.sampling.pipeline import SamplingPipeline
from qr_sampler.settings import Settings

__all__ = ["SamplingSession"]


class SamplingSession(SessionRecords):
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
        self.settings = Settings.load() if settings is None else settings
        check_components(self.settings, self.settings, prefix="QR_")
        self._logger = logger or logging.getLogger("qr_sampler.host")
        self._early_ends = EarlyEndLog(self._logger)
        self._access: LogitsAccess = access or NumpyLogits()
        self._dropped: deque[DroppedBytes] = deque()
        self._sources = (
            configured_sources(self.settings, self._dropped.append, make_monitor, own_sources)
            if sources is None
            else dict(sources)
        )
        self._pipelines: dict[str, SamplingPipeline] = {}
        self._groups = RowGroups()
        super().__init__(facts, self.settings, self._sources, self._dropped, self._logger)

    @property
    def sources(self) -> Mapping[str, EntropySource]:
        """The sources that requests may be admitted with, by name; the configured one first."""
        return self._sources

    def check_request(
        self, arguments: Mapping[Any, Any] | None, fields: EngineFields | None = None
    ) -> None:
        """Refuses a request that could not be served. To be called before :meth:`begin`.

        :meth:`begin` raises nothing: it has the sequence of such a request end at once.

        Args:
            arguments: The request's ``qr_*`` keys, and whatever else is among its arguments.
            fields: The request's ordinary fields.

        Raises:
            ConfigError: Naming the key, its value and the remedy.
        """
        self._options(arguments, fields)

    def begin(
        self,
        arguments: Mapping[Any, Any] | None,
        stop: StopConditions,
        *,
        fields: EngineFields | None = None,
        ending_token: int | None = None,
        prompt_tokens: int | None = None,
        prompt_digest: str = "",
        logits_fields: Mapping[str, Any] | None = None,
    ) -> TokenSequence | None:
        """Returns a new sequence, or ``None`` if its request leaves its tokens to the engine.

        Args:
            arguments: The request's ``qr_*`` keys, and whatever else is among its arguments.
            stop: What ends the sequence.
            fields: The request's ordinary fields.
            ending_token: A token with which the engine ends it; ``None`` if there is none.
            prompt_tokens: Number of tokens of the prompt; ``None`` if the host does not say.
            prompt_digest: Keyed SHA-256 of their ids, hexadecimal, for the ledger.
            logits_fields: Those of the request's ordinary fields that change its logits, as
                JSON-ready values, for the ledger.
        """
        self._begin_model_digest()
        options, failure = self._resolved(arguments, fields)
        if options.left_to_engine:
            self.record([bypass_record(options)])
            return None
        if (guard := primary_guard(self._sources[options.source])) is not None:
            guard.start_up()
        # Without such a token the request continues to its length limit with an arbitrary token,
        # flagged as forced each time.
        end = 0 if ending_token is None else ending_token
        request = RequestFacts(
            prompt_tokens=prompt_tokens,
            prompt_digest=prompt_digest,
            fields=logits_fields or {},
            wall_time_ns=time.time_ns(),
        )
        return TokenSequence(options, stop, ending_token=end, request=request, failure=failure)

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
        except BaseException:
            # The step is not finished, so what earlier groups have drawn decides no token.
            self.record(_wasted(step, outcomes))
            raise
        if None in outcomes:
            self._do_without(logits, step, outcomes)
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

    def source(self, name: str) -> EntropySource:
        """Returns the source called *name*, which a request was admitted with."""
        return self._sources[name]

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

    def _options(
        self, arguments: Mapping[Any, Any] | None, fields: EngineFields | None
    ) -> RequestOptions:
        return resolve_request(self.settings, arguments, fields, self._sources)

    def _resolved(
        self, arguments: Mapping[Any, Any] | None, fields: EngineFields | None
    ) -> tuple[RequestOptions, str]:
        """Returns the options of a request, and why it cannot be served, if it cannot."""
        try:
            return self._options(arguments, fields), ""
        except ConfigError as error:
            # It was accepted at admission, but a component may work there and not here.
            self._logger.error("a request that was admitted cannot be served and ends: %s", error)
            return resolve_request(self.settings, {FOLLOW_KEY: 0}), str(error)

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
        contexts = self._contexts(step, group) if pipeline.reads_contexts else None
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

    def _contexts(self, step: StepRows, group: RowGroup) -> list[RowContext]:
        """Returns the contexts of the tokens that the rows of *group* decide."""
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
