# SPDX-License-Identifier: Apache-2.0
"""A sequence of tokens being generated, and which of its tokens have been emitted.

A request for n samples has n sequences.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Final

from qr_sampler.admission.overrides import RequestOptions
from qr_sampler.host.outcomes import Outcome
from qr_sampler.host.stop_conditions import StopConditions
from qr_sampler.records import EmissionRecord
from qr_sampler.records.entries import Entry, RequestFacts, SequenceEnd, SequenceRecord
from qr_sampler.temperature import RunningMean

__all__ = ["UNKNOWN_TOKEN", "TokenSequence"]

UNKNOWN_TOKEN: Final = -1
"""Stands for a token that the engine has not disclosed."""


@dataclass(slots=True)
class _UnsettledToken:
    """A sampled token that may still be dropped, with what has to be restored then."""

    outcome: Outcome | None
    """The source of its record; ``None`` once it has one."""
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
    overdue: bool = False
    """Whether :meth:`TokenSequence.record_overdue` has seen it before."""


class _WeaklyReferable:
    """Has room for weak references, which dataclasses can make themselves from Python 3.11 on."""

    __slots__ = ("__weakref__",)


@dataclass(slots=True, eq=False)
class TokenSequence(_WeaklyReferable):
    """The state of a sequence until it has ended.

    A token goes through two stages: sampled, when the engine has taken what was forced; and
    emitted, when the engine has continued from it or the sequence has ended with it. Whether a
    token between the two is emitted is unknown: its record says so if that remains so, and a
    further record follows if it becomes known later.

    Methods that return records leave it to the caller to keep them.
    """

    options: RequestOptions
    """The options of its request."""
    stop: StopConditions
    """What ends it."""
    ending_token: int = 0
    """The token forced to end it."""
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Names it in the records."""
    request: RequestFacts = field(default_factory=RequestFacts)
    """What else its ledger says of its request."""
    failure: str = ""
    """Why it has to end; from then on nothing is drawn for it. Empty otherwise."""
    ended: bool = False
    """Whether its last token has been sampled; tokens sampled after that are dropped."""
    tokens: list[int] = field(default_factory=list)
    """Its tokens, the unsettled ones included."""
    running_entropy: RunningMean = field(init=False)
    """Mean of the recorded entropies of its tokens."""
    link: bytes = b""
    """What ties its next row to its latest token, if the source takes commitments."""
    _unsettled: list[_UnsettledToken] = field(default_factory=list)
    """Sampled tokens that may still be dropped."""
    _emitted_tokens: int = 0
    """How many of its tokens are known to have been emitted."""
    _over: bool = False
    """Whether its end has been recorded."""

    def __post_init__(self) -> None:
        self.running_entropy = RunningMean(self.options.parameters.varentropy_drift_rate)

    @property
    def request_key(self) -> str:
        """Names its request in the records."""
        return self.options.request_key or self.name

    @property
    def unsettled(self) -> int:
        """Number of its latest tokens that may still be dropped, or have been recorded as such."""
        return len(self._unsettled)

    @property
    def stop_facts(self) -> dict[str, Any]:
        """What ends it, as JSON-ready values for the ledger."""
        return self.stop.as_dict()

    def sampled(self, outcome: Outcome, *, hold_end: bool = False) -> list[Entry]:
        """Appends a token that the engine has taken; returns the records that this settles.

        An engine whose steps overlap keeps sampling before it learns that a sequence has ended.

        Args:
            outcome: The token.
            hold_end: Whether a token that ends the sequence may still be dropped, because somebody
                has to hand it over; :meth:`settle` records it then. Otherwise it is emitted.
        """
        if self.ended:
            return self.wasted(outcome, "after_stop")
        tokens, position = self.tokens, outcome.position
        token_id, entropy_nats, link = outcome.remembered
        if len(tokens) < position:
            tokens.extend([UNKNOWN_TOKEN] * (position - len(tokens)))
        tokens.append(token_id)
        mean = self.running_entropy
        self._unsettled.append(_UnsettledToken(outcome, position, token_id, mean.value, self.link))
        if entropy_nats is not None:
            mean.observe(entropy_nats)
        if link is not None:
            self.link = link
        self.ended = self.stop.end_with(tokens)
        if not self.ended or hold_end:
            return []
        return self.settle()

    def wasted(self, outcome: Outcome, reason: str) -> list[Entry]:
        """Returns the records of a token that the engine dropped: those of its bytes, if any."""
        return [*outcome.discards(self, reason)]

    def confirm(self) -> list[Entry]:
        """Returns the records that are settled when all sampled tokens have been emitted."""
        emitted, self._unsettled = self._unsettled, []
        return [self._emitted(token) for token in emitted]

    def settle(self, arrived: int | None = None) -> list[Entry]:
        """Returns the records of the tokens that have arrived, and the end of a sequence with them.

        For hosts that hand their tokens over themselves.

        Args:
            arrived: Number of its tokens that whoever reads them has got; all if not given.
        """
        count = len(self.tokens) if arrived is None else arrived
        emitted = [token for token in self._unsettled if token.position < count]
        self._unsettled = self._unsettled[len(emitted) :]
        entries = [self._emitted(token) for token in emitted]
        if self.ended and not self._unsettled:
            entries += self.end("forced" if self.failure else "stop")
        return entries

    def go_on(self, steps_in_flight: int) -> list[Entry]:
        """Returns the records that are settled when a further step of the sequence begins.

        Args:
            steps_in_flight: Number of steps that the engine may begin before it processes the
                tokens of the first of them, that one included.
        """
        unsettled = self._unsettled
        count = 0
        for token in unsettled:
            token.steps += 1
            count += token.steps >= steps_in_flight
        if not count:
            return []
        self._unsettled = unsettled[count:]
        return [self._emitted(token) for token in unsettled[:count]]

    def drop(self, reason: str, *, keep: int) -> list[Entry]:
        """Returns the records of sampled tokens that turned out not to be emitted.

        A sequence whose last token is among them has not ended.

        Args:
            reason: Why.
            keep: Number of tokens of the sequence that were emitted, or may still be.
        """
        unsettled = self._unsettled
        if not unsettled or unsettled[-1].position < keep:
            return []
        kept = [token for token in unsettled if token.position < keep]
        dropped = unsettled[len(kept) :]
        self._unsettled = kept
        first = dropped[0]
        self.running_entropy.value, self.link = first.running_entropy, first.link
        del self.tokens[first.position :]
        self.ended = False
        self.stop.start_again(self.tokens)
        return [entry for token in dropped for entry in self._dropped(token, reason)]

    def end(self, reason: str) -> list[Entry]:
        """Returns the record of its end, once; before it those of tokens that have none.

        Args:
            reason: Why it is over: ``stop`` when it has ended by itself, ``forced`` when it was
                ended without entropy, ``departed`` when the engine has dropped it, ``closed`` when
                the engine has ended.
        """
        if self._over:
            return []
        self._over = True
        tokens, link = self.record_unsettled(), self.link.hex()
        over = SequenceEnd(self, self._emitted_tokens, reason, link, time.time_ns())
        return [*tokens, over]

    def record_unsettled(self) -> list[Entry]:
        """Returns the records of sampled tokens that may or may not be emitted."""
        return self._records_of_unknown(self._unsettled)

    def record_overdue(self) -> list[Entry]:
        """Returns the same, but only for tokens that were there at the last call."""
        overdue = [token for token in self._unsettled if token.overdue]
        for token in self._unsettled:
            token.overdue = True
        return self._records_of_unknown(overdue)

    def resume(self, history: Sequence[int]) -> list[Entry]:
        """Returns the records that are settled when the engine resumes the sequence.

        Args:
            history: Its emitted tokens as the engine knows them.
        """
        dropped = self.drop("dropped_on_resumption", keep=len(history))
        self.tokens[:] = [
            ours if theirs == UNKNOWN_TOKEN and ours is not None else theirs
            for ours, theirs in zip_longest(self.tokens[: len(history)], history)
        ]
        self.stop.start_again(self.tokens)
        return self.confirm() + dropped

    def twin(self, history: Sequence[int]) -> TokenSequence:
        """Returns a separate sequence that continues from *history* as this one would."""
        stop = replace(self.stop, stop_strings=None)
        return TokenSequence(
            self.options, stop, self.ending_token, request=self.request, tokens=list(history)
        )

    def could_be_resumed(self, options: RequestOptions, history: Sequence[int]) -> bool:
        """Returns whether this can be the sequence that the engine resumes.

        Args:
            options: The options of the request whose sequence is resumed.
            history: The tokens of that sequence as the engine knows them.
        """
        if self.ended or self.options != options:
            return False
        settled = len(self.tokens) - len(self._unsettled)
        if not settled <= len(history) <= len(self.tokens):
            return False
        pairs = zip(self.tokens, history, strict=False)
        return all(ours == theirs or UNKNOWN_TOKEN in (ours, theirs) for ours, theirs in pairs)

    def _emitted(self, token: _UnsettledToken) -> Entry:
        """Returns the entry of a token now known to be emitted."""
        self._emitted_tokens += 1
        if token.outcome is None:
            return self._later_record(token, emitted=True)
        return token.outcome.entry(self, emitted=True)

    def _dropped(self, token: _UnsettledToken, reason: str) -> list[Entry]:
        """Returns the entries of a token now known not to be emitted."""
        if token.outcome is None:
            return [self._later_record(token, emitted=False, reason=reason)]
        return self.wasted(token.outcome, reason)

    def _records_of_unknown(self, tokens: Sequence[_UnsettledToken]) -> list[Entry]:
        """Returns the records of those *tokens* that have none, and marks them as recorded."""
        entries: list[Entry] = []
        for token in tokens:
            if token.outcome is not None:
                entries.append(token.outcome.entry(self, emitted=None))
                # What is kept must not keep the step alive.
                token.outcome = None
        return entries

    def _later_record(
        self, token: _UnsettledToken, *, emitted: bool, reason: str = ""
    ) -> SequenceRecord:
        record = EmissionRecord(
            request_key=self.request_key,
            sequence=self.name,
            position=token.position,
            token_id=token.token_id,
            emitted=emitted,
            reason=reason,
            wall_time_ns=time.time_ns(),
        )
        return SequenceRecord(record, self)
