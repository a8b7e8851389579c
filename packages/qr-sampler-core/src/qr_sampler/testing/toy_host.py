# SPDX-License-Identifier: Apache-2.0
"""A host without a model: it adds, aborts, preempts, resumes and forks, in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import numpy as np

from qr_sampler.arrays import Logits
from qr_sampler.host import (
    Entry,
    RecordKeeper,
    SamplingSession,
    StepRows,
    StopConditions,
    TokenSequence,
)
from qr_sampler.testing.ledger_checks import EmittedText

__all__ = ["END_TOKEN", "VOCAB_SIZE", "ToyHost", "ToyRequest", "play_script"]

VOCAB_SIZE: Final = 16
"""Number of tokens of the toy host."""

END_TOKEN: Final = 9
"""The token that ends every sequence of the toy host."""

MOST_RUNNING: Final = 6
"""Largest number of requests that a script has in the batch."""


@dataclass(slots=True, eq=False)
class ToyRequest:
    """One sequence as the toy host sees it, which is what has really happened to it."""

    sequence: TokenSequence | None
    """What the session remembers of it; ``None`` when the host chooses its tokens."""
    max_tokens: int
    """Number of tokens after which it ends."""
    output: list[int] = field(default_factory=list)
    """The tokens that the host has emitted."""
    first: int = 0
    """Number of tokens that it began with, of a fork."""
    prompt: Sequence[int] | None = None
    """Token ids of its prompt, if it has one."""
    taken: list[bool] = field(default_factory=list)
    """For each step that it was in, whether the host has taken its token."""

    @property
    def finished(self) -> bool:
        """Whether the host has ended it."""
        return len(self.output) >= self.max_tokens or self.output[-1:] == [END_TOKEN]

    def text(self) -> EmittedText:
        """Returns what was emitted, for :func:`~qr_sampler.testing.check_ledger`."""
        if self.sequence is None:
            raise ValueError("nothing is recorded of a request that is left to the host")
        return EmittedText(
            sequence=self.sequence.name,
            request_key=self.sequence.request_key,
            tokens=tuple(self.output[self.first :]),
            first=self.first,
            trial=self.sequence.options.trial,
            condition=self.sequence.options.condition,
            settled=self.finished,
        )


class ToyHost(RecordKeeper):
    """Decodes a batch of sequences whose logits follow from a seed.

    Args:
        session: What it samples with.
        seed: Of the logits.
        overlapping: Whether a step begins before the tokens of the last one are known, so that one
            token too many is sampled at the end of every sequence.
    """

    def __init__(
        self, session: SamplingSession, *, seed: int = 0, overlapping: bool = False
    ) -> None:
        super().__init__(session)
        self.running: list[ToyRequest] = []
        """The batch."""
        self.requests: list[ToyRequest] = []
        """All that were ever added."""
        self._preempted: list[ToyRequest] = []
        self._logits = np.random.default_rng(seed)
        self._steps_in_flight = 2 if overlapping else 1

    def settled(self) -> list[Entry]:
        """Returns nothing: every step records what it settles."""
        return []

    def open_sequences(self) -> list[TokenSequence]:
        """Returns the sequences of the batch."""
        sequences = [request.sequence for request in self.running]
        return [sequence for sequence in sequences if sequence is not None]

    def departed(self) -> list[Entry]:
        """Returns the ends of those that were preempted and never resumed."""
        sequences = [request.sequence for request in self._preempted]
        return [entry for each in sequences if each is not None for entry in each.end("departed")]

    def add(
        self, max_tokens: int = 20, prompt: Sequence[int] | None = None, **arguments: object
    ) -> ToyRequest:
        """Takes a request in.

        Args:
            max_tokens: Number of tokens after which it ends.
            prompt: Token ids of its prompt, which no logits depend on.
            **arguments: Its ``qr_*`` keys, without their prefix.
        """
        stop = StopConditions(frozenset({END_TOKEN}), max_tokens=max_tokens)
        keys = {f"qr_{name}": value for name, value in arguments.items()}
        tokens = None if prompt is None else len(prompt)
        sequence = self.session.begin(keys, stop, ending_token=END_TOKEN, prompt_tokens=tokens)
        if sequence is not None and prompt is not None:
            self.session.keep_prompt(sequence, prompt)
        return self._enter(ToyRequest(sequence, max_tokens, prompt=prompt))

    def abort(self, request: ToyRequest, *, lose: int = 0) -> None:
        """Ends a request before it has finished.

        Args:
            request: One of the batch.
            lose: Number of its latest tokens that are on the way and emitted to nobody.
        """
        self._leave(request, lose)
        if request.sequence is not None:
            self.session.record(request.sequence.end("departed"))

    def preempt(self, request: ToyRequest, *, lose: int = 0) -> None:
        """Takes a request out of the batch, to be resumed later. Arguments as for :meth:`abort`."""
        self._leave(request, lose)
        self._preempted.append(request)

    def resume(self, request: ToyRequest) -> None:
        """Puts a preempted request back into the batch."""
        if request.sequence is not None:
            self.session.record(request.sequence.resume(request.output))
        request.taken.clear()
        self._preempted.remove(request)
        self.running.append(request)

    def fork(self, request: ToyRequest) -> ToyRequest:
        """Returns a further sequence that goes on from the settled tokens of *request*."""
        history = request.output[: len(request.output) - self.unsettled(request)]
        twin = None if request.sequence is None else request.sequence.twin(history)
        return self._enter(
            ToyRequest(twin, request.max_tokens, history, len(history), request.prompt)
        )

    def unsettled(self, request: ToyRequest) -> int:
        """Returns how many of the latest tokens of *request* may still be on the way."""
        return sum(request.taken[-self._steps_in_flight :])

    def step(self, logits: Logits | None = None, unfinished: Sequence[ToyRequest] = ()) -> None:
        """Decides one token for every request of the batch.

        Args:
            logits: Shape ``(B, V)``, modified; made up if not given.
            unfinished: Requests whose token is thrown away, as that of an unfinished prefill.
        """
        self.begin_step()
        if not self.running:
            return
        rows = self._made_up() if logits is None else logits
        records: list[Entry] = []
        step = StepRows()
        for line, request in enumerate(self.running):
            if request.sequence is not None:
                step.lines.append(line)
                step.sequences.append(request.sequence)
                step.positions.append(len(request.output))
        outcomes = iter(self.session.decide(rows, step))
        chosen = rows.argmax(axis=1).tolist()
        for line, request in enumerate(self.running):
            takes = request not in unfinished and not request.finished
            if request.sequence is not None:
                outcome, late = next(outcomes), request.finished
                records += (
                    request.sequence.sampled(outcome)
                    if takes or late
                    else request.sequence.wasted(outcome, "not_emitted")
                )
            request.taken.append(takes)
            if takes:
                request.output.append(chosen[line])
        self.session.record(records)
        if self._steps_in_flight == 1:
            self.running = [request for request in self.running if not request.finished]

    def begin_step(self) -> None:
        """Takes in what a further step shows of the last one; :meth:`step` does so itself."""
        records: list[Entry] = []
        for request in self.running:
            if request.sequence is not None:
                records += request.sequence.go_on(self._steps_in_flight)
        self.session.record(records)
        # The end of a sequence is known only when the step after it has been sampled.
        over = [request for request in self.running if request.finished and not request.taken[-1]]
        self.running = [request for request in self.running if request not in over]

    def _made_up(self) -> Logits:
        rows = self._logits.normal(size=(len(self.running), VOCAB_SIZE)).astype(np.float32)
        rows[:, END_TOKEN] -= 2.0
        return rows

    def _enter(self, request: ToyRequest) -> ToyRequest:
        self.requests.append(request)
        self.running.append(request)
        return request

    def _leave(self, request: ToyRequest, lose: int) -> None:
        self.running.remove(request)
        if request.sequence is not None:
            self.session.record(request.sequence.record_unsettled())
        if lose:
            del request.output[-lose:]


def play_script(host: ToyHost, *, seed: int, steps: int = 100) -> None:
    """Has *host* do at random what hosts do, and ends it.

    Args:
        host: A host without requests.
        seed: Of the script.
        steps: Number of steps.
    """
    script = Random(seed)
    waiting: list[ToyRequest] = []
    for step in range(steps):
        _change(host, script, waiting)
        while len(host.running) < MOST_RUNNING and script.random() < 0.4:
            _add(host, script, step)
        host.step(unfinished=[each for each in host.running if script.random() < 0.05])
        if script.random() < 0.2:
            host.flush()
        if script.random() < 0.1:
            host.write_overdue()
    host.close()


def _change(host: ToyHost, script: Random, waiting: list[ToyRequest]) -> None:
    """Aborts, preempts, forks and resumes some of the requests of *host*."""
    for request in list(host.running):
        chance = script.random()
        if request.finished or chance > 0.15:
            continue
        lose = script.randint(0, host.unsettled(request))
        if chance < 0.03:
            host.abort(request, lose=lose)
        elif chance < 0.1:
            host.preempt(request, lose=lose)
            waiting.append(request)
        elif len(host.running) < MOST_RUNNING:
            host.fork(request)
    if waiting and script.random() < 0.5:
        host.resume(waiting.pop(script.randrange(len(waiting))))


def _add(host: ToyHost, script: Random, step: int) -> None:
    arguments: dict[str, Any] = {"request_key": f"request {step}.{len(host.requests)}"}
    if script.random() < 0.5:
        arguments.update(trial=str(step), condition="toy")
    if script.random() < 0.3:
        arguments["sample_count"] = script.choice((8, 64, 1024))
    if script.random() < 0.3:
        arguments["temperature_strategy"] = script.choice(("edt", "varentropy"))
    if script.random() < 0.1:
        arguments["bypass"] = 1
    if host.session.keeps_prompts:
        arguments["prompt"] = [step, len(host.requests), step]
    host.add(script.randint(1, 12), **arguments)
