# SPDX-License-Identifier: Apache-2.0
"""The sequences of an engine under Model Runner V1, by the names of their requests.

A worker has access to its model runner, so that nothing has to be inferred from rows: a preempted
request keeps its name, each of n samples has its own, and a reused row has another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast
from weakref import proxy

from qr_sampler.host import Entry, RecordedDiscard, RecordKeeper, TokenSequence
from qr_sampler_vllm.engine.layout import settles_at_once, steps_in_flight
from qr_sampler_vllm.engine.session import EngineSession

__all__ = ["Pending", "RequestRows", "Sequences"]

ABORTED: Final = "aborted"
"""Why drafts are discarded that were drawn for a request before it was aborted."""


@dataclass(frozen=True, slots=True)
class RequestRows:
    """The rows of one request in a step: one for each of its drafts and one after them."""

    name: str
    """Name of the request."""
    sequence: TokenSequence | None
    """The sequence that it generates; ``None`` if its tokens are left to vLLM."""
    params: Any
    """Its ``SamplingParams``."""
    first: int
    """Index of its first row among the rows of the logits."""
    output: list[int]
    """Its tokens so far, vLLM's own list."""
    drafts: list[int] = field(default_factory=list)
    """The tokens that are drafted to follow."""
    emits: bool = True
    """Whether vLLM uses the chosen tokens: not for an unfinished prefill."""

    @property
    def owner(self) -> TokenSequence:
        """The sequence of a request whose tokens are not left to vLLM."""
        return cast(TokenSequence, self.sequence)

    @property
    def position(self) -> int:
        """Index of the token that the first row decides."""
        return len(self.output)


class Pending(Protocol):
    """Drafts that wait for the logits of their step."""

    def discards(self, reason: str) -> list[RecordedDiscard]:
        """Returns the records of their bytes if that step never comes."""


class Sequences(RecordKeeper):
    """Keeps one sequence per request in sync with the model runner.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        session: What the engine samples with.
        model_runner: vLLM's model runner, which is not kept alive.
    """

    session: EngineSession

    def __init__(self, vllm_config: Any, session: EngineSession, model_runner: Any) -> None:
        super().__init__(session)
        self._runner = proxy(model_runner)
        self._requests: dict[str, Any] = model_runner.requests
        self._at_once = settles_at_once(vllm_config)
        self._steps_in_flight = steps_in_flight(vllm_config)
        self._sequences: dict[str, TokenSequence | None] = {}
        self._waiting: list[Entry] = []
        """Records settled by the current step."""
        self.pending: dict[str, Pending] = {}
        """By request, drafts that have been drawn but not verified yet."""

    def rows(self, draft_counts: list[int] | None) -> list[RequestRows]:
        """Returns the rows of a step and settles the tokens of the last one.

        Args:
            draft_counts: Number of drafts of each request of the batch, ``None`` if there is none.
        """
        self._follow()
        batch = self._runner.input_batch
        discarded = self._runner.discard_request_mask.np
        rows: list[RequestRows] = []
        first = 0
        for index, name in enumerate(batch.req_ids):
            count = draft_counts[index] if draft_counts is not None else 0
            state = self._requests[name]
            rows.append(
                RequestRows(
                    name=name,
                    sequence=self._sequence(name, state),
                    params=state.sampling_params,
                    first=first,
                    output=state.output_token_ids,
                    drafts=list(batch.spec_token_ids[index][:count]),
                    emits=not discarded[index],
                )
            )
            first += count + 1
        return rows

    def of(self, name: str) -> TokenSequence | None:
        """Returns the sequence of a request; ``None`` if its tokens are left to vLLM."""
        with self.lock:
            return self._sequences.get(name)

    def settle(self, records: list[Entry]) -> None:
        """Stores the records that a step has settled; they are written after the step."""
        self._waiting += records
        if self._at_once:
            for sequence in self.open_sequences():
                self._waiting += sequence.confirm()

    def settled(self) -> list[Entry]:
        """Returns the records that are settled and not written yet."""
        settled, self._waiting = self._waiting, []
        return settled

    def open_sequences(self) -> list[TokenSequence]:
        """Returns the sequences of the requests that vLLM has not dropped."""
        return [sequence for sequence in self._sequences.values() if sequence is not None]

    def overdue(self) -> list[Entry]:
        """Returns the entries of tokens that have waited, and of drafts never verified."""
        entries = super().overdue()
        self._give_up_drafts()
        return entries + self.settled()

    def close(self) -> None:
        """Writes the records that remain when the engine ends."""
        with self.lock:
            for name in list(self.pending):
                self._waiting += self.pending.pop(name).discards(ABORTED)
            super().close()
            self._sequences.clear()

    def _hand_over(self) -> None:
        self.session.record(self.settled())

    def _follow(self) -> None:
        """Follows which requests vLLM continues and which it has dropped."""
        for name, sequence in list(self._sequences.items()):
            gone = name not in self._requests
            if gone:
                del self._sequences[name]
            if sequence is None:
                continue
            if gone:
                self._waiting += sequence.end("departed")
            else:
                self._waiting += sequence.go_on(self._steps_in_flight)
        self._give_up_drafts()
        self._hand_over()

    def _give_up_drafts(self) -> None:
        """Discards the drafts of requests that vLLM has dropped."""
        for name in self.pending.keys() - self._requests.keys():
            self._waiting += self.pending.pop(name).discards(ABORTED)

    def _sequence(self, name: str, state: Any) -> TokenSequence | None:
        if name not in self._sequences:
            self._sequences[name] = self._entering(state)
        sequence = self._sequences[name]
        # vLLM has chosen tokens itself in between, or has taken some back.
        if sequence is not None and len(sequence.tokens) != len(state.output_token_ids):
            self._waiting += sequence.resume(state.output_token_ids)
        return sequence

    def _entering(self, state: Any) -> TokenSequence | None:
        params, prompt = state.sampling_params, state.prompt_token_ids or ()
        sequence = self.session.admit(params, state.num_prompt_tokens)
        if sequence is not None and state.prompt_token_ids is not None:
            self.session.keep_prompt(sequence, state.prompt_token_ids)
        if sequence is not None and params.stop:
            sequence.stop.stop_strings = self.session.stop_strings(
                params, prompt, state.output_token_ids
            )
        return sequence
