# SPDX-License-Identifier: Apache-2.0
"""Outcomes of a row of logits: the token that was forced in it, and what it cost."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from qr_sampler.records import ForcedRecord, UnchosenRecord, UndecidedRecord
from qr_sampler.records.entries import DiscardEntry, Entry, SequenceRecord, TokenEntry
from qr_sampler.sampling.columns import Remembered, StepColumns

if TYPE_CHECKING:
    from qr_sampler.host.sequence import TokenSequence

__all__ = ["NO_LEDGER", "ChosenToken", "ForcedEnd", "Outcome", "UnchosenToken", "UndecidedToken"]

NO_LEDGER: Final = "ledger"
"""Why a sequence has to end whose tokens could not be recorded."""


class Outcome(Protocol):
    """A token that was forced, until it is known whether it was emitted."""

    @property
    def token_id(self) -> int:
        """The token."""

    @property
    def position(self) -> int:
        """Its index among the tokens of its sequence."""

    @property
    def remembered(self) -> Remembered:
        """What its sequence remembers of it."""

    def entry(self, sequence: TokenSequence, *, emitted: bool | None) -> Entry:
        """Returns the entry of the token as one of *sequence*.

        Args:
            sequence: Its sequence.
            emitted: Whether it was emitted; ``None`` when that is not known.
        """

    def discards(self, sequence: TokenSequence, reason: str) -> Sequence[Entry]:
        """Returns the entries of its bytes if *sequence* has not emitted it.

        Args:
            sequence: Its sequence.
            reason: Why.
        """


class ChosenToken(NamedTuple):
    """A token that entropy has chosen.

    A tuple, because every row of every step has one.
    """

    step: StepColumns
    """The step that selected it."""
    row: int
    """Which of the step's decided rows it is."""
    position: int
    """Its index among the tokens of its sequence."""
    draft_outcome: str | None = None
    """What has become of the draft in its place, where drafts are verified: see
    :attr:`~qr_sampler.TokenSamplingRecord.outcome`."""

    @property
    def token_id(self) -> int:
        """The token."""
        return self.step.token_ids[self.row]

    @property
    def remembered(self) -> Remembered:
        """What its sequence remembers of it."""
        return self.step.remembered[self.row]

    def entry(self, sequence: TokenSequence, *, emitted: bool | None) -> TokenEntry:
        """Returns the entry of the token."""
        return TokenEntry(self.step, self.row, sequence, self.position, self.draft_outcome, emitted)

    def discards(self, sequence: TokenSequence, reason: str) -> list[DiscardEntry]:
        """Returns the entry of its bytes if it was not emitted."""
        return [DiscardEntry(self.step, self.row, sequence, self.position, reason)]


@dataclass(frozen=True, slots=True)
class UnchosenToken(ABC):
    """A token that no entropy has chosen, and that has cost no bytes."""

    token_id: int
    """The token."""
    position: int
    """Its index among the tokens of its sequence."""

    @property
    def remembered(self) -> Remembered:
        """What its sequence remembers of it: the token alone."""
        return Remembered(self.token_id, None, None)

    def entry(self, sequence: TokenSequence, *, emitted: bool | None) -> SequenceRecord:
        """Returns the entry of the token; arguments as in :class:`Outcome`."""
        return SequenceRecord(self.record(sequence, emitted=emitted), sequence)

    @abstractmethod
    def record(self, sequence: TokenSequence, *, emitted: bool | None) -> UnchosenRecord:
        """Returns the record of the token; arguments as in :class:`Outcome`."""

    def discards(self, sequence: TokenSequence, reason: str) -> list[Entry]:
        """Returns nothing: it has cost no bytes."""
        return []

    def _common_fields(self, sequence: TokenSequence, emitted: bool | None) -> dict[str, Any]:
        """Returns the fields that the records of such tokens share, but for the reason."""
        return {
            "request_key": sequence.request_key,
            "sequence": sequence.name,
            "position": self.position,
            "token_id": self.token_id,
            "wall_time_ns": time.time_ns(),
            "trial": sequence.options.trial,
            "condition": sequence.options.condition,
            "emitted": emitted,
        }


@dataclass(frozen=True, slots=True)
class ForcedEnd(UnchosenToken):
    """A token that ends a sequence which gets no more entropy."""

    def record(self, sequence: TokenSequence, *, emitted: bool | None) -> ForcedRecord:
        """Returns the record of the token."""
        return ForcedRecord(
            **self._common_fields(sequence, emitted),
            reason=sequence.failure,
            source=sequence.options.source,
        )


@dataclass(frozen=True, slots=True)
class UndecidedToken(UnchosenToken):
    """A token in a row that has no distribution to draw from."""

    reason: str
    """What is wrong with the row, as in :attr:`~qr_sampler.UndecidedRecord.reason`."""

    def record(self, sequence: TokenSequence, *, emitted: bool | None) -> UndecidedRecord:
        """Returns the record of the token."""
        return UndecidedRecord(**self._common_fields(sequence, emitted), reason=self.reason)
