# SPDX-License-Identifier: Apache-2.0
"""The sampler of a loop that computes logits itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from qr_sampler import EngineFields, EntropySource, Settings
from qr_sampler.host import (
    Outcome,
    SamplingSession,
    StopConditions,
)
from qr_sampler_local.facts import engine_facts
from qr_sampler_local.loop.access import ReadLogits, health_tests, warm_up
from qr_sampler_local.loop.arrays import readable
from qr_sampler_local.loop.bookkeeping import SequenceKeeper
from qr_sampler_local.loop.interrupts import Uninterrupted
from qr_sampler_local.loop.rows import (
    at_least_one,
    check_json_ready,
    check_rows,
    request_keys,
    token_ids_of,
)
from qr_sampler_local.loop.sequence import LEFT_TO_CALLER, LocalSequence
from qr_sampler_local.loop.sources import made_here, own_sources, settings_for

__all__ = ["LocalSampler"]

logger = logging.getLogger("qr_sampler.local")


class LocalSampler(SequenceKeeper):
    """Chooses the tokens of a loop that computes logits itself, and keeps their records.

    Use it in a ``with`` block, whose end writes all records, also when an exception ends it. May be
    used from several threads, each with sequences of its own: one steps at a time.

    Args:
        model: Name of the model, for the records.
        settings: What to sample with; the environment's if not given.
        engine: Name of what computes the logits and its version, for the records.
        model_files: Directory of the model's files, or its one file, whose digests are recorded.
        sources: Sources of the caller's own, which stay open; the others are made as the settings
            say, and closed in the end. Without *settings* the first of them is the configured one.
        vocab_size: Number of columns that logits have to have; not checked if not given.
        distributions: Distributions of the engine, whose versions are recorded.
        host: Further facts about the engine for its records, as JSON-ready values.

    Raises:
        ConfigError: When a setting cannot be served.
        PluginError: When a configured source or its fallback is unknown, contested or broken.
    """

    def __init__(
        self,
        model: str,
        settings: Settings | None = None,
        *,
        engine: str = "loop 1.0",
        model_files: str | Path | None = None,
        sources: Mapping[str, EntropySource] | Iterable[EntropySource] | None = None,
        vocab_size: int | None = None,
        distributions: Iterable[str] = (),
        host: Mapping[str, Any] | None = None,
    ) -> None:
        own = own_sources(sources)
        vocab_size = at_least_one("vocab_size", vocab_size)
        check_json_ready("host", host)
        facts = engine_facts(
            engine,
            model,
            model_files=None if model_files is None else Path(model_files),
            distributions=distributions,
            host=host,
        )
        session = SamplingSession(
            facts,
            settings_for(settings, own),
            access=ReadLogits(),
            logger=logger,
            make_monitor=health_tests(),
            own_sources=own,
        )
        super().__init__(session)
        warm_up()
        self._on_host: bool | None = None
        """Where logits are; ``None`` before the first."""
        self._shape: tuple[int, ...] = ()
        self._batch: list[LocalSequence] = []
        """The sequences of the latest step, which are known to fit logits of that shape."""
        self._vocab_size = vocab_size
        self._made_here = made_here(session.sources, own)
        """The sources that are closed in the end."""

    def sequence(
        self,
        prompt_ids: Any = (),
        *,
        end_tokens: Iterable[int] = (),
        max_tokens: int | None = None,
        steps_in_flight: int = 1,
        fields: EngineFields | None = None,
        logits_fields: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> LocalSequence:
        """Returns a new sequence.

        Args:
            prompt_ids: Token ids of its prompt, for the records: any sequence or array of integers.
            end_tokens: Tokens that end it; the first of them is used to end it without entropy.
            max_tokens: Number of tokens after which it ends; ``None`` for no limit.
            steps_in_flight: Number of its steps that the loop may begin before the token of the
                first has reached whoever reads, that one included: 1 for a loop that uses a token
                before it computes the next.
            fields: Its ordinary temperature, top-p, top-k and min-p, which count where
                ``qr_follow_request`` says so.
            logits_fields: What else has changed its logits, as JSON-ready values, for the records.
            **options: Its ``qr_*`` keys, with or without that prefix.

        Raises:
            ConfigError: When an option, a number or a token id cannot be used.
            RuntimeError: When the sampler is closed.
        """
        keys = request_keys(options)
        ends = token_ids_of("end_tokens", end_tokens)
        prompt = token_ids_of("prompt_ids", prompt_ids)
        max_tokens = at_least_one("max_tokens", max_tokens)
        steps_in_flight = at_least_one("steps_in_flight", steps_in_flight) or 1
        check_json_ready("logits_fields", logits_fields)
        stop = StopConditions(frozenset(ends), max_tokens=max_tokens, prompt_length=len(prompt))
        # Without one, a text that gets no more entropy ends with any token.
        end_token = ends[0] if ends else 0
        with self.lock:
            self._check_open()
            # The session would end such a request, since an engine has promised to serve it.
            self.session.check_request(keys, fields)
            core = self.session.begin(
                keys,
                stop,
                fields=fields,
                ending_token=end_token,
                prompt_tokens=len(prompt),
                logits_fields=logits_fields,
            )
            if core is not None and self.session.keeps_prompts:
                self.session.keep_prompt(core, prompt)
            made = LocalSequence(
                core, stop, owner=self, end_token=end_token, steps_in_flight=steps_in_flight
            )
            self._begun(made)
            return made

    def step(self, logits: Any, sequences: Sequence[LocalSequence]) -> list[int]:
        """Returns the next token of each sequence; one draw for all that share a source.

        The tokens that earlier steps have chosen for these sequences count as emitted now, as far
        as their ``steps_in_flight`` say. A row that has no distribution (all masked, or with NaN)
        costs no bytes and gets the token of its largest logit, and a record that says so.

        Args:
            logits: Shape ``(B, V)``: a NumPy array, a torch tensor or an MLX array, of any
                floating-point type. Not modified.
            sequences: Whose the B rows are, in order. One that has ended draws nothing and gets
                its end token; one that is left to the caller gets ``LEFT_TO_CALLER``.

        Raises:
            EntropyUnavailableError: When the source fails and QR_FALLBACK_MODE is ``error``.
            ComponentError: When an amplifier or a temperature strategy fails, likewise.
            TypeError: When *logits* are no floating-point numbers.
            ValueError: When *logits* and *sequences* do not fit each other or this sampler.
            RuntimeError: When the sampler is closed.
        """
        decided = self.decide(logits, sequences)
        return [
            _token_without_outcome(sequence) if outcome is None else outcome.token_id
            for outcome, sequence in zip(decided, sequences, strict=True)
        ]

    def decide(self, logits: Any, sequences: Sequence[LocalSequence]) -> list[Outcome | None]:
        """Returns what :meth:`step` has decided: the outcomes of the tokens.

        ``None`` stands for a sequence that has ended before, or that is left to the caller.
        Arguments and errors are those of :meth:`step`.
        """
        with self.lock:
            self._check_open()
            rows = self._checked(logits, sequences)
            with Uninterrupted():
                return self._decided(rows, sequences)

    def chosen(self, sequence: LocalSequence, token_id: int) -> None:
        """Takes note of a token that the caller has chosen for a sequence that is left to it.

        Raises:
            ValueError: When the sampler chooses the tokens of the sequence, or another one does.
        """
        with self.lock:
            self._check_own(sequence)
            if not sequence.left_to_caller:
                raise ValueError(
                    f"{sequence!r}: step() chooses its tokens; pass qr_bypass=1 to choose them"
                )
            sequence.tokens.append(token_id)
            if sequence.ended:
                self._forget(sequence)

    def __enter__(self) -> LocalSampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                # What the loop was told has arrived there; after an error that is unknown.
                with self.lock, Uninterrupted():
                    for sequence in self.open:
                        self.emitted(sequence)
        finally:
            self.close()

    def _close_all(self) -> None:
        super()._close_all()
        with ExitStack() as closing:
            while self._made_here:
                closing.callback(self._made_here.pop().close)

    def _decided(self, rows: Any, sequences: Sequence[LocalSequence]) -> list[Outcome | None]:
        """Returns the outcomes of a step whose *rows* are checked, and keeps them."""
        step, stepped = self._begun_step(sequences)
        decided: list[Outcome | None] = [None] * len(sequences)
        if stepped:
            outcomes = self.session.decide(rows, step)
            self._take(stepped, step.sequences, outcomes)
            if len(outcomes) == len(decided):
                decided[:] = outcomes
            else:
                for line, outcome in zip(step.lines, outcomes, strict=True):
                    decided[line] = outcome
        return decided

    def _checked(self, logits: Any, sequences: Sequence[LocalSequence]) -> Any:
        """Returns *logits* as they are read, which fit *sequences* and this sampler."""
        rows = readable(logits, to_host=self._on_host is True)
        on_host = isinstance(rows, np.ndarray)
        if self._on_host is False and on_host:
            raise ValueError(
                "logits in the memory of the host, after others on an accelerator; make a sampler "
                "for each"
            )
        # Batches stay the same for many steps; sequences compare by identity.
        if rows.shape != self._shape or list(sequences) != self._batch:
            check_rows(rows, sequences, self, self._vocab_size)
            self._shape, self._batch = rows.shape, list(sequences)
        self._on_host = on_host
        return rows

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("this sampler is closed; make another one for further sequences")


def _token_without_outcome(sequence: LocalSequence) -> int:
    return LEFT_TO_CALLER if sequence.left_to_caller else sequence.end_token
