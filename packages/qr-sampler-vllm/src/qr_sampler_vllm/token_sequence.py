# SPDX-License-Identifier: Apache-2.0
"""One sequence of tokens in the making, and which of its tokens have been emitted.

A request for n samples has n sequences.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import time_ns
from typing import Final, Protocol, TypeAlias

import numpy as np

from qr_sampler import (
    DiscardRecord,
    ForcedRecord,
    Record,
    RequestOptions,
    RunningMean,
    StepResult,
    TokenSamplingRecord,
    discard_record,
    link_digest,
    token_record,
)
from qr_sampler.temperature import rounded
from qr_sampler_vllm.stop_conditions import StopConditions

__all__ = ["UNKNOWN_TOKEN", "Choice", "DrawnToken", "ForcedEnd", "Outcome", "TokenSequence"]

UNKNOWN_TOKEN: Final = -1
"""Stands for a token that vLLM has not told, or chose by itself."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A token that entropy has chosen, until it is known whether it was emitted."""

    step: StepResult
    """The step that selected it."""
    index: int
    """Which of the step's decided rows it is."""
    position: int
    """Its index among the tokens of its sequence."""
    outcome: str | None = None
    """What has become of the draft in its place, where drafts are verified: see
    :attr:`TokenSamplingRecord.outcome`."""

    @property
    def token_id(self) -> int:
        """The token."""
        return int(self.step.selection.token_ids[self.index])

    @property
    def link(self) -> bytes:
        """What ties the next row of its sequence to it; empty if the source takes no commitment."""
        if not self.step.row_digests:
            return b""
        u = float(self.step.amplification.u[self.index])
        return link_digest(self.step.row_digests[self.index], self.token_id, u)

    @property
    def entropy_nats(self) -> float:
        """Entropy of its row as strategies see it, so that means are the same on every machine."""
        (seen,) = rounded(np.array([self.step.plan.temperature.entropy_nats[self.index]]))
        return float(seen)

    def record(self, sequence: TokenSequence) -> TokenSamplingRecord:
        """Returns the record of the token as one that *sequence* has emitted."""
        return token_record(
            self.step,
            self.index,
            request_key=sequence.request_key,
            sequence=sequence.name,
            position=self.position,
            options=sequence.options,
            outcome=self.outcome,
        )

    def discards(self, sequence: TokenSequence, reason: str) -> list[DiscardRecord]:
        """Returns the records of its bytes when *sequence* has not emitted it.

        Args:
            sequence: Its sequence.
            reason: Why.
        """
        discard = discard_record(
            self.step,
            self.index,
            request_key=sequence.request_key,
            sequence=sequence.name,
            position=self.position,
            reason=reason,
        )
        return [discard]


@dataclass(frozen=True, slots=True)
class ForcedEnd:
    """A token that is to end a sequence for which no entropy can be had."""

    token_id: int
    """The token."""
    position: int
    """Its index among the tokens of its sequence."""


class DrawnToken(Protocol):
    """A token that entropy has chosen, however many numbers it took."""

    @property
    def token_id(self) -> int:
        """The token."""

    @property
    def position(self) -> int:
        """Its index among the tokens of its sequence."""

    @property
    def entropy_nats(self) -> float:
        """Entropy of its row as strategies see it."""

    @property
    def link(self) -> bytes:
        """What ties the next row of its sequence to it; empty if no commitment was made."""

    def record(self, sequence: TokenSequence) -> TokenSamplingRecord:
        """Returns the record of the token as one that *sequence* has emitted."""

    def discards(self, sequence: TokenSequence, reason: str) -> list[DiscardRecord]:
        """Returns the records of its bytes when *sequence* has not emitted it."""


Outcome: TypeAlias = DrawnToken | ForcedEnd
"""What became of a row."""


@dataclass(frozen=True, slots=True)
class _Unconfirmed:
    """A sampled token, with what has to be restored when it is dropped."""

    outcome: Outcome
    running_entropy: float
    """The running mean before it."""
    link: bytes
    """The link before it."""


@dataclass(slots=True, eq=False)
class TokenSequence:
    """What is remembered of a sequence until it has ended.

    A token goes through two stages: sampled, when vLLM has taken what was forced; and emitted, when
    vLLM has gone on with it or the sequence has ended with it. Tokens in between are dropped when
    the request is aborted.
    """

    options: RequestOptions
    """What its request asked for."""
    stop: StopConditions
    """What ends it."""
    ending_token: int = 0
    """Forced when no entropy can be had and the request is to end."""
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Names it in the records."""
    failure: str = ""
    """Why no entropy could be had. From then on nothing is drawn for the sequence any more."""
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

    def sampled(self, outcome: Outcome) -> list[Record]:
        """Takes in a token that vLLM has taken, and returns the records that this settles.

        With asynchronous scheduling vLLM samples on before it learns of the end of a sequence.
        """
        if self.ended:
            return self.wasted(outcome, "after_stop")
        missed = outcome.position - len(self.tokens)
        self.tokens.extend([UNKNOWN_TOKEN] * missed)
        self.tokens.append(outcome.token_id)
        self._unconfirmed.append(_Unconfirmed(outcome, self.running_entropy.value, self.link))
        if not isinstance(outcome, ForcedEnd):
            self.running_entropy.observe(outcome.entropy_nats)
            self.link = outcome.link
        self.ended = self.stop.end_with(self.tokens)
        return self.confirm() if self.ended else []

    def wasted(self, outcome: Outcome, reason: str) -> list[Record]:
        """Returns the records of a token that vLLM threw away: of its bytes, if it cost any."""
        if isinstance(outcome, ForcedEnd):
            return []
        return [*outcome.discards(self, reason)]

    def confirm(self) -> list[Record]:
        """Returns the records of the sampled tokens: they have been emitted."""
        if not self._unconfirmed:
            return []
        emitted, self._unconfirmed = self._unconfirmed, []
        return [self._emitted(one.outcome) for one in emitted]

    def drop(self, reason: str, *, keep: int = 0) -> list[Record]:
        """Returns the records of sampled tokens that were not emitted after all.

        Args:
            reason: Why.
            keep: Number of tokens of the sequence that were; those are confirmed.
        """
        kept = [one for one in self._unconfirmed if one.outcome.position < keep]
        dropped = self._unconfirmed[len(kept) :]
        self._unconfirmed = kept
        if dropped:
            first = dropped[0]
            self.running_entropy.value, self.link = first.running_entropy, first.link
            del self.tokens[first.outcome.position :]
        discards = [self.wasted(one.outcome, reason) for one in dropped]
        return self.confirm() + [record for records in discards for record in records]

    def resume(self, history: Sequence[int]) -> list[Record]:
        """Returns the records that are settled when vLLM takes the sequence up again.

        Args:
            history: Its emitted tokens as vLLM knows them.
        """
        records = self.drop("dropped_on_resumption", keep=len(history))
        self.tokens[:] = history
        return records

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

    def _emitted(self, outcome: Outcome) -> TokenSamplingRecord | ForcedRecord:
        if not isinstance(outcome, ForcedEnd):
            return outcome.record(self)
        return ForcedRecord(
            request_key=self.request_key,
            sequence=self.name,
            position=outcome.position,
            token_id=outcome.token_id,
            reason=self.failure,
            source=self.options.source,
            wall_time_ns=time_ns(),
            trial=self.options.trial,
            condition=self.options.condition,
        )
