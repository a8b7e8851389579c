# SPDX-License-Identifier: Apache-2.0
"""Bookkeeping for Model Runner V1, which addresses requests by their row in the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qr_sampler.host import DepartedSequences, Entry, Outcome, RecordKeeper, StepRows, TokenSequence
from qr_sampler_vllm.engine.interfaces import BatchUpdateLike, LogitsContextLike
from qr_sampler_vllm.engine.layout import settles_at_once, steps_in_flight
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.engine.tensor_parallel import TensorParallelGroup
from qr_sampler_vllm.requests.penalties import (
    Penalties,
    TokenArray,
    apply_penalties,
    distinct_tokens,
)
from qr_sampler_vllm.runners.forced_rows import mark_forced, take_largest_of_forced
from qr_sampler_vllm.runners.role import EngineRole

__all__ = ["BatchRow", "RunnerV1", "apply_update"]


@dataclass(slots=True, eq=False)
class BatchRow:
    """One row of the batch."""

    sequence: TokenSequence | None
    """The sequence that it generates, or ``None`` if its tokens are left to vLLM."""
    output_token_ids: list[int] = field(default_factory=list)
    """vLLM's own list of its tokens; each sampled one is appended. Only the length is used: under
    asynchronous scheduling the values are placeholders."""
    penalties: Penalties | None = None
    """The penalties that the request asked for."""
    prompt_tokens: TokenArray | None = None
    """The distinct tokens of the prompt, if penalties depend on them."""
    forced: Outcome | None = None
    """The token forced last, until the length of the list shows whether vLLM has taken it."""

    def take(self) -> list[Entry]:
        """Returns the records that are settled if vLLM has taken the token forced last."""
        forced = self.forced
        if forced is None or self.sequence is None or len(self.output_token_ids) <= forced.position:
            return []
        self.forced = None
        return self.sequence.sampled(forced)

    def settle(self) -> list[Entry]:
        """Returns the records settled at the end of the step, whether or not vLLM took the token.

        Rows of an unfinished prefill are sampled like any other, and their tokens are dropped.
        """
        records = self.take()
        if self.forced is not None and self.sequence is not None:
            records += self.sequence.wasted(self.forced, "not_emitted")
            self.forced = None
        return records


@dataclass(frozen=True, slots=True)
class _DecidedRows:
    """The rows of a batch that the plugin decides; the same until the batch changes."""

    lines: list[int]
    """Their indices in the batch."""
    rows: list[BatchRow]
    """The rows."""
    sequences: list[TokenSequence]
    """Their sequences."""
    penalised: list[tuple[int, BatchRow]]
    """Those with penalties, and their indices in the batch."""

    @classmethod
    def of(cls, batch: Mapping[int, BatchRow]) -> _DecidedRows:
        """Returns those of *batch*."""
        decided = [(line, row) for line, row in sorted(batch.items()) if row.sequence is not None]
        return cls(
            lines=[line for line, _ in decided],
            rows=[row for _, row in decided],
            sequences=[row.sequence for _, row in decided if row.sequence is not None],
            penalised=[(line, row) for line, row in decided if row.penalties],
        )


class RunnerV1(EngineRole, RecordKeeper):
    """The plugin as Model Runner V1 sees it.

    vLLM calls :meth:`update_state` once before each step and :meth:`apply` within it. A row whose
    prefill is unfinished looks like any other in :meth:`apply`; only the next step shows that its
    token was dropped.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        ranks: The ranks that have to force the same tokens, if there are several.
    """

    session: EngineSession

    def __init__(self, vllm_config: Any, ranks: TensorParallelGroup | None = None) -> None:
        super().__init__(EngineSession(vllm_config, "Model Runner V1"))
        self._ranks = ranks
        self._at_once = settles_at_once(vllm_config)
        self._steps_in_flight = steps_in_flight(vllm_config)
        self._batch: dict[int, BatchRow] = {}
        self._decided = _DecidedRows.of(self._batch)
        take_largest_of_forced()
        self._departed = DepartedSequences(4 * vllm_config.scheduler_config.max_num_seqs)

    def update_state(self, update: BatchUpdateLike | None) -> None:
        """Settles the last step, then applies the changes of the batch."""
        with self.lock:
            records = self._settled(BatchRow.settle)
            staying: Iterable[BatchRow] = self._batch.values()
            if update is not None:
                before = list(staying)
                records += self._follow(update)
                self._decided = _DecidedRows.of(self._batch)
                still = set(map(id, self._batch.values()))
                staying = [row for row in before if id(row) in still]
            if not self._at_once:
                for row in staying:
                    if row.sequence is not None:
                        records += row.sequence.go_on(self._steps_in_flight)
            self.session.record(records)

    def apply(self, logits: Any, context: LogitsContextLike | None = None) -> Any:
        """Forces one token in every row of *logits*, in place, and returns it."""
        forced: dict[int, int] = {}
        try:
            with self.lock:
                forced = self._force(logits)
        finally:
            # The other ranks wait for this even if this one has failed.
            if self._ranks is not None:
                self._ranks.tell(logits, forced)
        return logits

    def settled(self) -> list[Entry]:
        """Returns the records of tokens that vLLM has taken by now."""
        return self._settled(BatchRow.take)

    def open_sequences(self) -> list[TokenSequence]:
        """Returns the sequences of the batch."""
        return [row.sequence for row in self._batch.values() if row.sequence is not None]

    def departed(self) -> list[Entry]:
        """Returns the ends of sequences that have left the batch unfinished."""
        return self._departed.close()

    def close(self) -> None:
        """Writes the records that remain when the engine ends."""
        with self.lock:
            self.session.record(self._settled(BatchRow.settle))
            super().close()

    def _force(self, logits: Any) -> dict[int, int]:
        """Forces the tokens of a step; returns them by row if other ranks have to know them."""
        decided = self._decided
        if not decided.lines:
            return {}
        if decided.penalised:
            self._apply_penalties(logits, decided.penalised)
        positions = [len(row.output_token_ids) for row in decided.rows]
        step = StepRows(decided.lines, decided.sequences, positions)
        outcomes = self.session.decide(logits, step)
        for row, outcome in zip(decided.rows, outcomes, strict=True):
            row.forced = outcome
        if self._ranks is None:
            if len(outcomes) == logits.shape[0]:
                mark_forced(logits)
            return {}
        pairs = zip(decided.lines, outcomes, strict=True)
        return {line: outcome.token_id for line, outcome in pairs}

    def _apply_penalties(self, logits: Any, penalised: list[tuple[int, BatchRow]]) -> None:
        """Applies the penalties that vLLM applies only after its logits processors.

        On a forced row vLLM's own pass changes nothing that matters: one token stays finite.
        """
        apply_penalties(
            logits,
            [line for line, _ in penalised],
            [row.penalties for _, row in penalised if row.penalties],
            [row.prompt_tokens for _, row in penalised],
            [row.sequence.tokens for _, row in penalised if row.sequence],
        )

    def _settled(self, settle: Callable[[BatchRow], list[Entry]]) -> list[Entry]:
        """Returns the records that are settled by the end of the last step."""
        records: list[Entry] = []
        for row in self._batch.values():
            records += settle(row)
            if self._at_once and row.sequence is not None:
                records += row.sequence.confirm()
        return records

    def _follow(self, update: BatchUpdateLike) -> list[Entry]:
        """Applies the changes of the batch and returns the records that they settle."""
        # Departures are processed before arrivals: a sequence may be in both.
        after = dict(self._batch)
        apply_update(after, update, {index: BatchRow(None) for index, *_ in update.added})
        staying = set(map(id, after.values()))
        left = [row for row in self._batch.values() if id(row) not in staying]
        records = self._leave(left)
        added: dict[int, BatchRow] = {}
        for index, params, prompt, output in update.added:
            added[index], settled = self._enter(params, prompt, output)
            records += settled
        apply_update(self._batch, update, added)
        return records

    def _leave(self, rows: list[BatchRow]) -> list[Entry]:
        """Stores the sequences of departed rows; returns the records that this settles."""
        sequences = [row.sequence for row in rows if row.sequence is not None]
        return [record for sequence in sequences for record in self._departed.add(sequence)]

    def _enter(
        self, params: Any, prompt: Sequence[int] | None, output: list[int]
    ) -> tuple[BatchRow, list[Entry]]:
        """Returns the row of a request that enters the batch and the records that this settles."""
        sequence = self.session.admit(params, len(prompt or ()))
        if sequence is None:
            return BatchRow(None), []
        records: list[Entry] = []
        if output:
            sequence = self._departed.take(sequence.options, output) or sequence
            records = sequence.resume(output)
        if prompt is not None:
            self.session.keep_prompt(sequence, prompt)
        if params.stop and sequence.stop.stop_strings is None:
            sequence.stop.stop_strings = self.session.stop_strings(
                params, prompt or (), sequence.tokens
            )
        penalties = Penalties.of(params)
        row = BatchRow(sequence, output, penalties, distinct_tokens(prompt) if penalties else None)
        return row, records


def apply_update(
    batch: dict[int, BatchRow], update: BatchUpdateLike, added: dict[int, BatchRow]
) -> None:
    """Applies *update* to *batch*, in place and in vLLM's order: removed, added, moved.

    A row that is added to or moved onto replaces its occupant, which vLLM does not list as removed.

    Args:
        batch: Rows by index.
        update: vLLM's description of the changes.
        added: The new rows of the update.
    """
    for index in update.removed:
        batch.pop(index, None)
    batch.update(added)
    for origin, target, directionality in update.moved:
        moved, replaced = batch.pop(origin, None), batch.pop(target, None)
        if moved is not None:
            batch[target] = moved
        if replaced is not None and directionality.name == "SWAP":
            batch[origin] = replaced
    for index in [index for index in batch if index >= update.batch_size]:
        del batch[index]
