# SPDX-License-Identifier: Apache-2.0
"""Bookkeeping for Model Runner V2, which addresses requests by a slot that is recycled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler.host import (
    ChosenToken,
    DepartedSequences,
    Entry,
    Outcome,
    RecordKeeper,
    StepRows,
    TokenSequence,
)
from qr_sampler_vllm.engine.interfaces import LogitsContextLike, RequestStatesLike
from qr_sampler_vllm.engine.layout import settles_at_once, steps_in_flight
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.engine.tensor_parallel import TensorParallelGroup
from qr_sampler_vllm.requests.made_up_requests import is_warming_up
from qr_sampler_vllm.runners.draft_rows import LogitsRow, rows_of
from qr_sampler_vllm.runners.role import EngineRole
from qr_sampler_vllm.tsd.opt_in import opted_in

__all__ = ["RunnerV2"]


class DecidingRow(NamedTuple):
    """A row of the logits whose token vLLM can use."""

    row: LogitsRow
    """The row."""
    sequence: TokenSequence
    """The sequence that gets its token."""
    position: int
    """Index of that token in its sequence."""


class RunnerV2(EngineRole, RecordKeeper):
    """The plugin as Model Runner V2 sees it.

    Rows are reordered every step, and slots are reused without notice. Whether vLLM will use a
    row's token is known in advance: its prefill is finished when the sequence is as long as the
    tokens fed. No entropy is spent on the others.

    The chosen tokens are read after the step, so that no step waits for them to arrive from an
    accelerator.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        req_states: vLLM's ``LogitsProcRequestState``.
        ranks: The ranks that have to force the same tokens, if there are several.
    """

    session: EngineSession

    def __init__(
        self,
        vllm_config: Any,
        req_states: RequestStatesLike,
        ranks: TensorParallelGroup | None = None,
    ) -> None:
        super().__init__(_session(vllm_config))
        self._states = req_states
        self._ranks = ranks
        self._drafts = vllm_config.speculative_config is not None
        self._names_drafts = opted_in(vllm_config)
        self._embeds = bool(getattr(vllm_config.model_config, "enable_prompt_embeds", False))
        self._at_once = settles_at_once(vllm_config)
        self._steps_in_flight = steps_in_flight(vllm_config)
        self._slots: list[TokenSequence | None] = [None] * req_states.max_num_reqs
        self._departed = DepartedSequences(4 * req_states.max_num_reqs)
        self._stepping: set[int] = set()
        """Slots that the last step decided on."""
        self._entering: list[tuple[int, Any]] = []
        """Slots and parameters of new requests whose tokens or prompts are yet to be read."""
        self._decided: list[tuple[DecidingRow, Outcome]] = []
        """Outcomes of the rows of the last step, until they are accounted for."""
        self._open: dict[TokenSequence, None] = {}
        """Sequences that have been in a step and may have tokens without records."""

    def add_request(self, slot: int, sampling_params: Any) -> bool:
        """Assigns *slot* to a new request and returns whether its logits will be modified."""
        with self.lock:
            self._vacate(slot)
            if is_warming_up():
                return False
            sequence = self.session.admit(sampling_params, int(self._states.prompt_len.np[slot]))
            self._slots[slot] = sequence
            if sequence is None:
                return False
            if sampling_params.stop or self._resumes(slot) or self.session.keeps_prompts:
                self._entering.append((slot, sampling_params))
            return True

    def apply_staged_writes(self) -> None:
        """Reads the tokens of new requests, which vLLM has written by now."""
        with self.lock:
            entering, self._entering = self._entering, []
            for slot, sampling_params in entering:
                sequence = self._slots[slot]
                if sequence is not None:
                    self._enter(slot, sequence, sampling_params)

    def apply(self, logits: Any, context: LogitsContextLike | None = None) -> Any:
        """Forces one token in every row of *logits* that emits one, in place, and returns it."""
        forced: dict[int, int] = {}
        try:
            if context is not None:
                with self.lock:
                    forced = self._force(logits, context)
        finally:
            # The other ranks wait for this even if this one has failed.
            if self._ranks is not None:
                self._ranks.tell(logits, forced)
        return logits

    def settled(self) -> list[Entry]:
        """Returns the records that are settled by the end of the last step."""
        decided, self._decided = self._decided, []
        records = _accounted(decided, named=self._names_drafts)
        self._open.update(dict.fromkeys(deciding.sequence for deciding, _ in decided))
        if self._at_once:
            records += [record for deciding, _ in decided for record in deciding.sequence.confirm()]
        return records

    def open_sequences(self) -> list[TokenSequence]:
        """Returns the sequences that have been in a step and may have tokens without records."""
        return list(self._open)

    def departed(self) -> list[Entry]:
        """Returns the ends of sequences that are in no step and were not resumed."""
        waiting = [sequence for sequence in self._slots if sequence is not None]
        ends = [entry for sequence in waiting for entry in sequence.end("departed")]
        return ends + self._departed.close()

    def _vacate(self, slot: int) -> None:
        """Removes the sequence from a slot that vLLM has given to another request."""
        records = self.settled()
        previous, self._slots[slot] = self._slots[slot], None
        if previous is not None:
            records += self._departed.add(previous)
        self.session.record(records)

    def _force(self, logits: Any, context: LogitsContextLike) -> dict[int, int]:
        """Forces the tokens of a step; returns them by row if other ranks have to know them."""
        records = self.settled()
        rows = self._deciding(context)
        records += self._confirm(rows)
        self.session.record(records)
        if not rows:
            return {}
        self._stepping = {deciding.row.slot for deciding in rows}
        outcomes = self.session.decide(logits, self._step(rows))
        self._decided = list(zip(rows, outcomes, strict=True))
        if self._ranks is None:
            return {}
        return {deciding.row.line: outcome.token_id for deciding, outcome in self._decided}

    def _deciding(self, context: LogitsContextLike) -> list[DecidingRow]:
        """Returns the rows whose tokens vLLM can use, with their sequences."""
        rows: list[DecidingRow] = []
        rejected: set[int] = set()
        prefill: list[int] = self._states.prefill_len.np.tolist()
        prompt: list[int] = self._states.prompt_len.np.tolist()
        for row in rows_of(context, drafts=self._drafts):
            sequence = self._slots[row.slot]
            if row.draft is not None and row.draft < 0:
                rejected.add(row.slot)
            elif (
                sequence is not None
                and row.slot not in rejected
                and row.length >= prefill[row.slot]
            ):
                rows.append(DecidingRow(row, sequence, row.length - prompt[row.slot]))
        return rows

    def _step(self, rows: Sequence[DecidingRow]) -> StepRows:
        step = StepRows()
        last: dict[int, int] = {}
        follows: list[int] = []
        for index, (row, sequence, position) in enumerate(rows):
            step.lines.append(row.line)
            step.sequences.append(sequence)
            step.positions.append(position)
            follows.append(-1 if row.draft is None else last.get(row.slot, -1))
            last[row.slot] = index
        if max(follows) >= 0:
            step.follows = follows
        return step

    def _confirm(self, rows: Sequence[DecidingRow]) -> list[Entry]:
        """Returns the records of the tokens whose fate this step reveals.

        A token that vLLM continues from has been emitted. Sequences that are not in the step were
        aborted or are waiting; which of the two is unknown.
        """
        records: list[Entry] = []
        for row, sequence, position in rows:
            if row.draft is None and not sequence.ended:
                dropped = sequence.drop("dropped", keep=position)
                records += sequence.go_on(self._steps_in_flight) + dropped
        going_on = dict.fromkeys(deciding.sequence for deciding in rows)
        for sequence in self._open:
            if sequence not in going_on:
                records += sequence.record_unsettled()
        self._open = going_on
        return records

    def _resumes(self, slot: int) -> bool:
        return bool(self._states.prefill_len.np[slot] > self._states.prompt_len.np[slot])

    def _enter(self, slot: int, sequence: TokenSequence, sampling_params: Any) -> None:
        prompt, history = self._tokens_of(slot)
        if history:
            sequence = self._resumed(slot, sequence, history)
        # In the place of ids, an embedded prompt has zeros.
        if not self._embeds or prompt.any():
            self.session.keep_prompt(sequence, prompt)  # type: ignore[arg-type]
        if history:
            # Behind the prompt, which the first line of the sequence tells of.
            self.session.record(sequence.resume(history))
        if sampling_params.stop and sequence.stop.stop_strings is None:
            sequence.stop.stop_strings = self.session.stop_strings(
                sampling_params, prompt.tolist(), history
            )

    def _tokens_of(self, slot: int) -> tuple[NDArray[np.int32], list[int]]:
        """Returns the tokens of the prompt in a slot, and those of its sequence so far."""
        prompt_length = int(self._states.prompt_len.np[slot])
        row = self._states.all_token_ids.gpu[slot, : int(self._states.prefill_len.np[slot])]
        # A copy: the slot will be another request's.
        tokens = np.array(row.cpu() if hasattr(row, "cpu") else row, dtype=np.int32)
        return tokens[:prompt_length], tokens[prompt_length:].tolist()

    def _resumed(self, slot: int, fresh: TokenSequence, history: list[int]) -> TokenSequence:
        """Returns the sequence that is resumed in *slot*, or *fresh* if it is no longer known.

        A preempted sequence waits in its old slot until that is reused.
        """
        known = self._departed.take(fresh.options, history)
        for other, waiting in enumerate(self._slots):
            if known is not None:
                break
            idle = other != slot and other not in self._stepping
            if idle and waiting is not None and waiting.could_be_resumed(fresh.options, history):
                # If that slot is in use after all, entropy continues to choose its tokens.
                known, self._slots[other] = waiting, waiting.twin(history)
        self._slots[slot] = known or fresh
        return known or fresh


def _session(vllm_config: Any) -> EngineSession:
    """Returns what the engine samples with; its genesis record tells of a drafter of ours."""
    if not opted_in(vllm_config):
        return EngineSession(vllm_config, "Model Runner V2")
    from qr_sampler_vllm.tsd.attachment import facts_of_deployment

    facts = facts_of_deployment(vllm_config)
    return EngineSession(vllm_config, "Model Runner V2 with TSD, exact_match", facts)


def _accounted(
    decided: Sequence[tuple[DecidingRow, Outcome]], *, named: bool = False
) -> list[Entry]:
    """Returns the records that the tokens forced in a step settle.

    Args:
        decided: The rows with their outcomes, those of one request in order.
        named: Whether records say what has become of the draft in the place of each token.
    """
    records: list[Entry] = []
    taken: dict[int, int | None] = {}
    for index, ((row, sequence, _), outcome) in enumerate(decided):
        accepted = row.draft is None or taken.get(row.slot) == row.draft
        taken[row.slot] = outcome.token_id if accepted else None
        if accepted:
            following = decided[index + 1][0].row if index + 1 < len(decided) else None
            records += sequence.sampled(_named(outcome, row, following) if named else outcome)
        else:
            records += sequence.wasted(outcome, "rejected_draft")
    return records


def _named(outcome: Outcome, row: LogitsRow, following: LogitsRow | None) -> Outcome:
    """Returns *outcome* with the fate of the draft in its place, which the next row assumes."""
    if not isinstance(outcome, ChosenToken):
        return outcome
    drafted = following is not None and following.slot == row.slot
    if not drafted:
        return outcome._replace(draft_outcome="bonus")
    stands = following is not None and following.draft == outcome.token_id
    return outcome._replace(draft_outcome="accepted" if stands else "corrected")
