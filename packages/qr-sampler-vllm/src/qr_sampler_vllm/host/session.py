# SPDX-License-Identifier: Apache-2.0
"""What one engine samples with: settings, sources, pipelines and journal."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from qr_sampler import (
    END_REQUEST,
    RAISE_ERROR,
    ComponentError,
    ConfigError,
    DroppedBytes,
    EntropySource,
    EntropyUnavailableError,
    QRSamplerError,
    Record,
    RowContext,
    SamplingPipeline,
    Settings,
    bypass_record,
    check_components,
    configured_sources,
    dropped_record,
    resolve_request,
)
from qr_sampler_vllm.engine.layout import Ranks, check_layout, most_rows, ranks_of
from qr_sampler_vllm.engine.step import (
    defect_of,
    force_tokens,
    get_ready,
    pipeline_for,
    sample_rows,
    selector_for,
)
from qr_sampler_vllm.host.discretion import public_model_name
from qr_sampler_vllm.host.engine_status import EngineStatus
from qr_sampler_vllm.host.fates import serve
from qr_sampler_vllm.host.journal import Journal
from qr_sampler_vllm.host.outcomes import Choice, ForcedEnd, Outcome, Undecided
from qr_sampler_vllm.host.row_groups import RowGroup, RowGroups, StepRows
from qr_sampler_vllm.host.token_sequence import TokenSequence
from qr_sampler_vllm.requests.admission import resolve
from qr_sampler_vllm.requests.stop_conditions import (
    DetokenizedStopStrings,
    StopConditions,
    StopStrings,
    ending_token,
)
from qr_sampler_vllm.status.file import StatusFile

__all__ = ["EngineSession"]

logger = logging.getLogger("vllm.qr_sampler")
"""A child of vLLM's own logger, which alone shows informational messages."""


class EngineSession:
    """Sampling for one engine, independent of vLLM's model runner.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        runner: Name of the model runner, for the start-up message.
        more_settings: What else the sampling was configured with, for the genesis record.

    Raises:
        ConfigError: When the layout of the engine or a setting cannot be served.
        PluginError: When a configured source or its fallback is unknown, contested or broken.
    """

    def __init__(
        self, vllm_config: Any, runner: str, more_settings: Mapping[str, Any] | None = None
    ) -> None:
        check_layout(vllm_config)
        self.settings = Settings.load()
        check_components(self.settings, self.settings, prefix="QR_")
        self._dropped: deque[DroppedBytes] = deque()
        self._sources = configured_sources(self.settings, self._dropped.append)
        self._pipelines: dict[str, SamplingPipeline] = {}
        self._groups = RowGroups()
        self._model_config = vllm_config.model_config
        self._most_rows = most_rows(vllm_config)
        ranks = ranks_of(vllm_config)
        self._journal = Journal(
            self.settings,
            self._sources.values(),
            model=str(self._model_config.model),
            engine_rank=ranks.data_parallel_rank,
            more_settings=more_settings,
        )
        get_ready(vllm_config.device_config.device_type)
        self._status = EngineStatus(self._facts(runner, ranks), self._sources)
        self._status_file = StatusFile(f"engine-{ranks.data_parallel_rank}-{self._journal.run_id}")
        self.publish()
        logger.info("%s", self._banner(runner, ranks))

    def admit(self, sampling_params: Any, prompt_length: int) -> TokenSequence | None:
        """Returns a new sequence, or ``None`` when the request leaves its tokens to vLLM.

        Args:
            sampling_params: vLLM's ``SamplingParams``, validated at admission.
            prompt_length: Number of tokens in the prompt.
        """
        failure = ""
        try:
            options = resolve(self.settings, sampling_params)
        except ConfigError as error:
            # The front end has accepted it; but a component may work there and not here.
            failure = str(error)
            logger.error("a request that was admitted cannot be served and ends: %s", failure)
            options = resolve_request(self.settings, None)
        if options.left_to_engine:
            self.record([bypass_record(options)])
            return None
        end = ending_token(sampling_params)
        return TokenSequence(
            options,
            StopConditions.of(
                sampling_params,
                max_model_len=self._model_config.max_model_len,
                prompt_length=prompt_length,
            ),
            # Without such a token the request goes on to its length limit with a token that is as
            # good as any other, every time flagged as forced.
            ending_token=0 if end is None else end,
            failure=failure,
        )

    def stop_strings(
        self, sampling_params: Any, prompt: Sequence[int], history: Sequence[int] = ()
    ) -> StopStrings:
        """Returns what looks for the stop strings of a request.

        Args:
            sampling_params: vLLM's ``SamplingParams``.
            prompt: Token ids of the prompt.
            history: The tokens so far, of a sequence that is resumed.
        """
        stop_strings = DetokenizedStopStrings(self._model_config, sampling_params, prompt)
        stop_strings.start_again(history)
        return stop_strings

    def decide(self, logits: Any, step: StepRows) -> list[Outcome]:
        """Selects and forces the tokens of a step.

        Args:
            logits: Tensor of shape ``(R, V)``, modified in place.
            step: The rows to decide.

        Returns:
            What became of each row.

        Raises:
            EntropyUnavailableError: When the source fails and the operator chose to stop then.
        """
        outcomes: dict[int, Outcome] = {}
        try:
            for group in self._groups.of(step):
                self._decide_group(logits, step, group, outcomes)
        except BaseException:
            # What the groups before it have drawn decides no token of a step that is not finished.
            self.record(_wasted(step, outcomes))
            raise
        forced = {
            index: self.without_entropy(logits, step.lines[index], sequence, step.positions[index])
            for index, sequence in enumerate(step.sequences)
            if index not in outcomes
        }
        if forced:
            lines = [step.lines[index] for index in forced]
            force_tokens(logits, lines, [outcome.token_id for outcome in forced.values()])
        outcomes.update(forced)
        return [outcomes[index] for index in range(len(step.lines))]

    def without_entropy(
        self, logits: Any, line: int, sequence: TokenSequence, position: int
    ) -> Outcome:
        """Returns what becomes of a row that gets no entropy.

        Either there is none for its sequence, or the row has no distribution to draw from. Such a
        row costs no bytes, and ends its request where the operator ends those without entropy.

        Args:
            logits: Tensor of shape ``(R, V)``, the row still as the model made it.
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
        return Undecided(token_id, position, defect)

    def record(self, records: Iterable[Record]) -> None:
        """Keeps *records*, and those of bytes that sources have dropped meanwhile."""
        dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
        kept: list[Record] = [*map(dropped_record, dropped), *records]
        self._journal.write(kept)
        self._status.observe(kept)

    def publish(self) -> None:
        """Says how the engine is doing to the front end, if that is due."""
        self._status_file.update(self._status.as_dict(records_lost=self._journal.lost))

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

    def give_up(self, sequences: Sequence[TokenSequence], error: QRSamplerError) -> None:
        """Ends *sequences*, because the operator wants no token that entropy has not chosen.

        Args:
            sequences: Get no entropy any more.
            error: What went wrong.

        Raises:
            QRSamplerError: *error*, when the operator chose to stop then.
        """
        self.raise_if_told_to(error)
        logger.error("%s; %d sequences end early", error, len(set(map(id, sequences))))
        for sequence in sequences:
            sequence.failure = str(error)
        self._groups.forget()

    def _decide_group(
        self, logits: Any, step: StepRows, group: RowGroup, outcomes: dict[int, Outcome]
    ) -> None:
        """Decides the rows of *group* and fills in their *outcomes*."""

        def attempt(part: RowGroup) -> QRSamplerError | None:
            error = self._attempt(logits, step, part, outcomes)
            if error is not None:
                self.raise_if_told_to(error)
            return error

        def give_up(part: RowGroup, failure: QRSamplerError) -> None:
            self.give_up([step.sequences[index] for index in part.indices], failure)

        serve(group, lambda whole: whole.apart(step.sequences), attempt, give_up)

    def _attempt(
        self, logits: Any, step: StepRows, group: RowGroup, outcomes: dict[int, Outcome]
    ) -> QRSamplerError | None:
        """Decides the rows of *group* with one draw; returns why that has failed, if it has."""
        rows = group.rows.with_running_entropy(
            [step.sequences[index].running_entropy.value for index in group.indices]
        )
        lines = [step.lines[index] for index in group.indices]
        pipeline = self._pipeline(group.source, logits)
        contexts = self._contexts(step, group) if pipeline.source.commits else None
        try:
            result = sample_rows(pipeline, logits, lines, rows, contexts)
        except (EntropyUnavailableError, ComponentError) as error:
            return error
        if result is not None:
            for decided, line in enumerate(result.plan.lines.tolist()):
                index = group.indices[line]
                outcomes[index] = Choice(result, decided, step.positions[index])
        return None

    def _contexts(self, step: StepRows, group: RowGroup) -> list[RowContext]:
        """Returns which tokens the rows of *group* are going to decide."""
        run_id = self._journal.run_id
        return [
            RowContext(
                run_id,
                step.sequences[index].name,
                step.positions[index],
                step.sequences[index].link,
            )
            for index in group.indices
        ]

    def _pipeline(self, source: str, logits: Any) -> SamplingPipeline:
        """Returns what samples with *source*; only now is it known where the logits are."""
        if source not in self._pipelines:
            # A selector each: it may keep the outcome of its latest step in buffers of its own.
            self._pipelines[source] = pipeline_for(
                logits,
                self.settings,
                self._sources[source],
                selector_for(logits, self._most_rows),
                self._dropped.append,
            )
        return self._pipelines[source]

    def _facts(self, runner: str, ranks: Ranks) -> dict[str, Any]:
        return {
            "engine": ranks.data_parallel_rank,
            "run_id": self._journal.run_id,
            "pid": os.getpid(),
            "runner": runner,
            "ranks": asdict(ranks),
            "model": public_model_name(str(self._model_config.model)),
            "amplifier": self.settings.signal_amplifier_type,
            "temperature_strategy": self.settings.temperature_strategy,
            "fallback_mode": self.settings.fallback_mode,
            "started_wall_time_ns": time.time_ns(),
        }

    def _banner(self, runner: str, ranks: Ranks) -> str:
        settings = self.settings
        return (
            f"qr-sampler run {self._journal.run_id} on {runner}, data-parallel rank "
            f"{ranks.data_parallel_rank}, tensor-parallel size {ranks.tensor_parallel_size}, "
            f"pipeline-parallel size {ranks.pipeline_parallel_size}: "
            f"source {', '.join(self._sources)}, when it fails {settings.fallback_mode}, amplifier "
            f"{settings.signal_amplifier_type}, temperature {settings.temperature_strategy}"
        )


def _wasted(step: StepRows, outcomes: Mapping[int, Outcome]) -> list[Record]:
    """Returns the records of what was drawn for rows of a step that is not finished."""
    return [
        record
        for index, outcome in outcomes.items()
        for record in step.sequences[index].wasted(outcome, "step_failed")
    ]
