# SPDX-License-Identifier: Apache-2.0
"""One sequence of tokens in the making, and which of its tokens have been emitted.

A request for n samples has n sequences.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from time import time_ns
from typing import Final

from qr_sampler import EmissionRecord, Record, RequestOptions, RunningMean
from qr_sampler_vllm.host.outcomes import Outcome
from qr_sampler_vllm.requests.stop_conditions import StopConditions

__all__ = ["UNKNOWN_TOKEN", "TokenSequence"]

UNKNOWN_TOKEN: Final = -1
"""Stands for a token that vLLM has not told."""


@dataclass(slots=True)
class _Unconfirmed:
    """A sampled token, with what has to be restored when it is dropped."""

    outcome: Outcome | None
    """What has its record to be made of; ``None`` once it has one."""
    position: int
    """Its index in its sequence."""
    token_id: int
    """The token."""
    running_entropy: float
    """The running mean before it."""
    link: bytes
    """The link before it."""
    steps: int = 0
    """Number of steps of its sequence that have begun since."""
    waited: bool = False
    """Whether somebody has asked for it who would not wait much longer."""


@dataclass(slots=True, eq=False)
class TokenSequence:
    """What is remembered of a sequence until it has ended.

    A token goes through two stages: sampled, when vLLM has taken what was forced; and emitted, when
    vLLM has gone on with it or the sequence has ended with it. Whether those in between are emitted
    is not known: when that stays so, their records say it, and more of them say it later if it
    shows after all.
    """

    options: RequestOptions
    """What its request asked for."""
    stop: StopConditions
    """What ends it."""
    ending_token: int = 0
    """Forced when it is to end."""
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Names it in the records."""
    failure: str = ""
    """Why it is to end. From then on nothing is drawn for the sequence any more."""
    ended: bool = False
    """Whether its last token has been sampled; what is sampled after that is thrown away."""
    tokens: list[int] = field(default_factory=list)
    """Its tokens, the unconfirmed ones included."""
    running_entropy: RunningMean = field(init=False)
    """Mean of the recorded entropies of its tokens."""
    link: bytes = b""
    """What ties its next row to its latest token, if the source takes commitments."""
    _unconfirmed: list[_Unconfirmed] = field(default_factory=list)
    """Sampled tokens that may still be dropped."""

    def __post_init__(self) -> None:
        self.running_entropy = RunningMean(self.options.parameters.varentropy_drift_rate)

    @property
    def request_key(self) -> str:
        """Names its request in the records."""
        return self.options.request_key or self.name

    @property
    def awaits_records(self) -> bool:
        """Whether any of its tokens has no record yet."""
        return any(one.outcome is not None for one in self._unconfirmed)

    def sampled(self, outcome: Outcome) -> list[Record]:
        """Takes in a token that vLLM has taken, and returns the records that this settles.

        With asynchronous scheduling vLLM samples on before it learns of the end of a sequence.
        """
        if self.ended:
            return self.wasted(outcome, "after_stop")
        missed = outcome.position - len(self.tokens)
        self.tokens.extend([UNKNOWN_TOKEN] * missed)
        self.tokens.append(outcome.token_id)
        self._unconfirmed.append(
            _Unconfirmed(
                outcome,
                outcome.position,
                outcome.token_id,
                self.running_entropy.value,
                self.link,
            )
        )
        if outcome.entropy_nats is not None:
            self.running_entropy.observe(outcome.entropy_nats)
        if outcome.link is not None:
            self.link = outcome.link
        self.ended = self.stop.end_with(self.tokens)
        return self.confirm() if self.ended else []

    def wasted(self, outcome: Outcome, reason: str) -> list[Record]:
        """Returns the records of a token that vLLM threw away: of its bytes, if it cost any."""
        return [*outcome.discards(self, reason)]

    def confirm(self) -> list[Record]:
        """Returns the records that are settled when all sampled tokens have been emitted."""
        emitted, self._unconfirmed = self._unconfirmed, []
        return [self._settled(one) for one in emitted]

    def go_on(self, steps_in_flight: int) -> list[Record]:
        """Returns the records that are settled when a further step of the sequence begins.

        Args:
            steps_in_flight: Number of steps that vLLM may begin before it takes in the tokens of
                the first of them, that one included.
        """
        for one in self._unconfirmed:
            one.steps += 1
        emitted = [one for one in self._unconfirmed if one.steps >= steps_in_flight]
        self._unconfirmed = self._unconfirmed[len(emitted) :]
        return [self._settled(one) for one in emitted]

    def drop(self, reason: str, *, keep: int) -> list[Record]:
        """Returns the records of sampled tokens that were not emitted after all.

        Args:
            reason: Why.
            keep: Number of tokens of the sequence that were, or may still be.
        """
        kept = [one for one in self._unconfirmed if one.position < keep]
        dropped = self._unconfirmed[len(kept) :]
        self._unconfirmed = kept
        if dropped:
            first = dropped[0]
            self.running_entropy.value, self.link = first.running_entropy, first.link
            del self.tokens[first.position :]
            self.stop.start_again(self.tokens)
        return [record for one in dropped for record in self._dropped(one, reason)]

    def tell(self) -> list[Record]:
        """Returns the records of sampled tokens that may or may not be emitted."""
        return self._told([one for one in self._unconfirmed if one.outcome is not None])

    def tell_overdue(self) -> list[Record]:
        """Returns the same, only of tokens that were there at the last call."""
        overdue = [one for one in self._unconfirmed if one.waited and one.outcome is not None]
        for one in self._unconfirmed:
            one.waited = True
        return self._told(overdue)

    def resume(self, history: Sequence[int]) -> list[Record]:
        """Returns the records that are settled when vLLM takes the sequence up again.

        Args:
            history: Its emitted tokens as vLLM knows them.
        """
        records = self.drop("dropped_on_resumption", keep=len(history))
        self.tokens[:] = [
            ours if theirs == UNKNOWN_TOKEN and ours is not None else theirs
            for ours, theirs in zip_longest(self.tokens[: len(history)], history)
        ]
        self.stop.start_again(self.tokens)
        return self.confirm() + records

    def twin(self, history: Sequence[int]) -> TokenSequence:
        """Returns a sequence of its own that goes on from *history* as this one would."""
        stop = replace(self.stop, stop_strings=None)
        return TokenSequence(self.options, stop, self.ending_token, tokens=list(history))

    def could_be_resumed(self, options: RequestOptions, history: Sequence[int]) -> bool:
        """Returns whether vLLM can mean this sequence.

        Args:
            options: What the request asked for whose sequence vLLM resumes.
            history: The tokens of that sequence as vLLM knows them.
        """
        if self.ended or self.options != options:
            return False
        confirmed = len(self.tokens) - len(self._unconfirmed)
        if not confirmed <= len(history) <= len(self.tokens):
            return False
        pairs = zip(self.tokens, history, strict=False)
        return all(ours == theirs or UNKNOWN_TOKEN in (ours, theirs) for ours, theirs in pairs)

    def _settled(self, one: _Unconfirmed) -> Record:
        """Returns what is to be recorded of a token now that it is known to be emitted."""
        if one.outcome is None:
            return self._became(one, emitted=True)
        return one.outcome.record(self, emitted=True)

    def _dropped(self, one: _Unconfirmed, reason: str) -> list[Record]:
        """Returns what is to be recorded of a token now that it is known not to be emitted."""
        if one.outcome is None:
            return [self._became(one, emitted=False, reason=reason)]
        return self.wasted(one.outcome, reason)

    def _told(self, tokens: Sequence[_Unconfirmed]) -> list[Record]:
        records: list[Record] = []
        for one in tokens:
            if one.outcome is not None:
                records.append(one.outcome.record(self, emitted=None))
                # What is remembered must not hold on to the step.
                one.outcome = None
        return records

    def _became(self, one: _Unconfirmed, *, emitted: bool, reason: str = "") -> EmissionRecord:
        return EmissionRecord(
            request_key=self.request_key,
            sequence=self.name,
            position=one.position,
            token_id=one.token_id,
            emitted=emitted,
            reason=reason,
            wall_time_ns=time_ns(),
        )
