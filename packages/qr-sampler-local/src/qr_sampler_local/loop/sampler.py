# SPDX-License-Identifier: Apache-2.0
"""The sampler of a loop that computes logits itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from qr_sampler import EngineFields, EntropySource, Settings
from qr_sampler.host import (
    Entry,
    Outcome,
    RecordKeeper,
    SamplingSession,
    StepRows,
    StopConditions,
    TokenSequence,
)
from qr_sampler_local.facts import engine_facts
from qr_sampler_local.loop.access import ReadLogits, health_tests
from qr_sampler_local.loop.arrays import readable
from qr_sampler_local.loop.rows import check_rows, token_ids_of
from qr_sampler_local.loop.sequence import LEFT_TO_CALLER, LocalSequence
from qr_sampler_local.loop.sources import own_sources, settings_for

__all__ = ["LocalSampler"]

logger = logging.getLogger("qr_sampler.local")


class LocalSampler(RecordKeeper):
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
        self._own = own_sources(sources)
        facts = engine_facts(
            engine,
            model,
            model_files=None if model_files is None else Path(model_files),
            distributions=distributions,
            host=host,
        )
        session = SamplingSession(
            facts,
            settings_for(settings, self._own),
            access=ReadLogits(),
            logger=logger,
            make_monitor=health_tests(),
            own_sources=self._own,
        )
        super().__init__(session)
        self._vocab_size = vocab_size
        self._sequences: dict[int, LocalSequence] = {}
        """Those whose end is not recorded, by identity."""
        self._ending: list[LocalSequence] = []
        """Those among them whose last token has been decided, and may still be dropped."""
        self._closed = False

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
            ConfigError: When an option or a token id cannot be used.
            RuntimeError: When the sampler is closed.
        """
        keys = {key if key.startswith("qr_") else f"qr_{key}": options[key] for key in options}
        ends = token_ids_of("end_tokens", end_tokens)
        prompt = token_ids_of("prompt_ids", prompt_ids)
        stop = StopConditions(frozenset(ends), max_tokens=max_tokens, prompt_length=len(prompt))
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
            self._sequences[id(made)] = made
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
        rows = readable(logits)
        with self.lock:
            self._check_open()
            check_rows(rows, sequences, self, self._vocab_size)
            if settled := self._gone_on(sequences):
                self.session.record(settled)
            step, stepped = _rows_to_decide(sequences)
            decided: list[Outcome | None] = [None] * len(sequences)
            if stepped:
                outcomes = self.session.decide(rows, step)
                for line, sequence, outcome in zip(step.lines, stepped, outcomes, strict=True):
                    self._take(sequence, outcome)
                    decided[line] = outcome
            return decided

    def chosen(self, sequence: LocalSequence, token_id: int) -> None:
        """Takes note of a token that the caller has chosen for a sequence that is left to it.

        Raises:
            ValueError: When the sampler chooses the tokens of the sequence.
        """
        if not sequence.left_to_caller:
            raise ValueError(
                f"{sequence!r}: its tokens are chosen by step(); pass qr_bypass=1 to choose them"
            )
        sequence.tokens.append(token_id)

    def emitted(self, sequence: LocalSequence, arrived: int | None = None) -> None:
        """Takes note that tokens of *sequence* have reached whoever reads.

        Args:
            sequence: The sequence.
            arrived: Number of its tokens that have, the first ones; all so far if not given.
        """
        with self.lock:
            self.session.record(self._emitted(sequence, arrived))

    def dropped(self, sequence: LocalSequence, count: int, reason: str = "not_emitted") -> None:
        """Takes note that the latest tokens of *sequence* have reached nobody.

        They are discards in the records, and the sequence goes on from the token before them.

        Args:
            sequence: One whose end is not recorded.
            count: Number of its latest tokens.
            reason: Why, for the records.

        Raises:
            ValueError: When some of these tokens are known to have been emitted.
        """
        with self.lock:
            keep = len(sequence.tokens) - count
            settled = len(sequence.tokens) - _unsettled(sequence)
            if count < 0 or keep < settled:
                raise ValueError(
                    f"count={count}: {settled} of the {len(sequence.tokens)} tokens of "
                    f"{sequence!r} are known to have been emitted; drop only later ones"
                )
            if sequence.core is not None:
                self.session.record(sequence.core.drop(reason, keep=keep))
            del sequence.tokens[keep:]
            if count:
                self._ending = [each for each in self._ending if each is not sequence]

    def close(self, sequence: LocalSequence | None = None, *, reason: str = "departed") -> None:
        """Ends *sequence*, or without one the sampler with all that is open.

        Args:
            sequence: The sequence. One that has ended by itself ends as it has.
            reason: ``"stop"`` when all its tokens have been emitted and it is complete;
                ``"departed"`` when it is given up, and its latest tokens may or may not have been
                emitted.
        """
        if sequence is None:
            self._close_all()
            return
        with self.lock:
            if reason == "stop" or sequence.ended:
                self.session.record(self._emitted(sequence))
            self.session.record(self._end(sequence, reason))

    def settled(self) -> list[Entry]:
        """Returns nothing: every step records what it settles."""
        return []

    def open_sequences(self) -> list[TokenSequence]:
        """Returns what the core keeps of the sequences whose end is not recorded."""
        sequences = list(self._sequences.values())
        return [sequence.core for sequence in sequences if sequence.core is not None]

    def __enter__(self) -> LocalSampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            with self.lock:
                for sequence in list(self._sequences.values()):
                    self.session.record(self._emitted(sequence))
        self._close_all()

    def _take(self, sequence: LocalSequence, outcome: Outcome) -> None:
        """Gives *sequence* the token of *outcome*."""
        core: Any = sequence.core
        core.sampled(outcome, hold_end=True)
        sequence.outcome = outcome
        sequence.tokens.append(outcome.token_id)
        if core.failure:
            # It may have no end token, and would go on without entropy.
            core.ended = True
        if core.ended:
            sequence.thread = threading.get_ident()
            self._ending.append(sequence)

    def _gone_on(self, sequences: Sequence[LocalSequence]) -> list[Entry]:
        """Returns the records that are settled because a loop goes on with a further step."""
        entries: list[Entry] = []
        for sequence in sequences:
            if sequence.core is not None and not sequence.ended:
                entries += sequence.core.go_on(sequence.steps_in_flight)
        if self._ending:
            entries += self._ended_before()
        return entries

    def _ended_before(self) -> list[Entry]:
        """Returns the ends of sequences that this thread has ended in steps before this one."""
        entries: list[Entry] = []
        thread = threading.get_ident()
        for sequence in [each for each in self._ending if each.thread == thread]:
            core: Any = sequence.core
            entries += core.go_on(sequence.steps_in_flight)
            if not core.unsettled:
                entries += self._emitted(sequence)
        return entries

    def _emitted(self, sequence: LocalSequence, arrived: int | None = None) -> list[Entry]:
        """Returns the records that are settled when tokens of *sequence* have arrived."""
        core = sequence.core
        if core is None or sequence.closed:
            return []
        entries = core.settle(arrived)
        if core.ended and not core.unsettled:
            self._forget(sequence)
        return entries

    def _end(self, sequence: LocalSequence, reason: str) -> list[Entry]:
        if sequence.closed:
            return []
        entries = [] if sequence.core is None else sequence.core.end(reason)
        self._forget(sequence)
        return entries

    def _forget(self, sequence: LocalSequence) -> None:
        sequence.closed = True
        self._sequences.pop(id(sequence), None)
        self._ending = [each for each in self._ending if each is not sequence]

    def _close_all(self) -> None:
        if self._closed:
            return
        self._closed = True
        super().close()
        for sequence in list(self._sequences.values()):
            self._forget(sequence)
        for name, source in self.session.sources.items():
            if name not in self._own:
                source.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this sampler is closed; make another one for further sequences")


def _token_without_outcome(sequence: LocalSequence) -> int:
    return LEFT_TO_CALLER if sequence.left_to_caller else sequence.end_token


def _unsettled(sequence: LocalSequence) -> int:
    """Returns how many of the latest tokens of *sequence* can be dropped."""
    return len(sequence.tokens) if sequence.core is None else sequence.core.unsettled


def _rows_to_decide(
    sequences: Sequence[LocalSequence],
) -> tuple[StepRows, list[LocalSequence]]:
    """Returns the rows of a step that get a token, and whose they are."""
    step = StepRows()
    stepped: list[LocalSequence] = []
    for line, sequence in enumerate(sequences):
        core = sequence.core
        if core is not None and not sequence.ended:
            step.lines.append(line)
            step.sequences.append(core)
            step.positions.append(len(sequence.tokens))
            stepped.append(sequence)
    return step, stepped
