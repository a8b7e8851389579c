# SPDX-License-Identifier: Apache-2.0
"""What can become of a row of logits: the token that was forced in it, and what it cost."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qr_sampler.records import (
    DiscardRecord,
    ForcedRecord,
    Record,
    TokenSamplingRecord,
    UnchosenRecord,
    UndecidedRecord,
)
from qr_sampler.records.accounting import discard_record, token_record
from qr_sampler.sampling.commitment import link_digest
from qr_sampler.sampling.pipeline import StepResult
from qr_sampler.temperature import rounded

if TYPE_CHECKING:
    from qr_sampler.host.sequence import TokenSequence

__all__ = ["ChosenToken", "ForcedEnd", "Outcome", "UnchosenToken", "UndecidedToken"]


class Outcome(Protocol):
    """A token that was forced, until it is known whether it was emitted."""

    @property
    def token_id(self) -> int:
        """The token."""

    @property
    def position(self) -> int:
        """Its index among the tokens of its sequence."""

    @property
    def entropy_nats(self) -> float | None:
        """Entropy of its row as strategies see it; ``None`` if no entropy has chosen the token."""

    @property
    def link(self) -> bytes | None:
        """What ties the next row of its sequence to it, empty if no commitment was made.

        ``None`` if no entropy has chosen the token, so that an earlier link goes on to hold.
        """

    def record(self, sequence: TokenSequence, *, emitted: bool | None) -> Record:
        """Returns the record of the token as one of *sequence*.

        Args:
            sequence: Its sequence.
            emitted: Whether it was emitted; ``None`` when that is not known.
        """

    def discards(self, sequence: TokenSequence, reason: str) -> list[DiscardRecord]:
        """Returns the records of the bytes that it cost, when *sequence* has not emitted it.

        Args:
            sequence: Its sequence.
            reason: Why.
        """


@dataclass(frozen=True, slots=True)
class ChosenToken:
    """A token that entropy has chosen."""

    step: StepResult
    """The step that selected it."""
    index: int
    """Which of the step's decided rows it is."""
    position: int
    """Its index among the tokens of its sequence."""
    draft_outcome: str | None = None
    """What has become of the draft in its place, where drafts are verified: see
    :attr:`~qr_sampler.TokenSamplingRecord.outcome`."""

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
        """Entropy of its row, rounded so that means are the same on every machine."""
        (seen,) = rounded(np.array([self.step.plan.temperature.entropy_nats[self.index]]))
        return float(seen)

    def record(self, sequence: TokenSequence, *, emitted: bool | None) -> TokenSamplingRecord:
        """Returns the record of the token."""
        return token_record(
            self.step,
            self.index,
            request_key=sequence.request_key,
            sequence=sequence.name,
            position=self.position,
            options=sequence.options,
            outcome=self.draft_outcome,
            emitted=emitted,
        )

    def discards(self, sequence: TokenSequence, reason: str) -> list[DiscardRecord]:
        """Returns the record of its bytes when it was not emitted."""
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
class UnchosenToken(ABC):
    """A token that no entropy has chosen, and that has cost no bytes."""

    token_id: int
    """The token."""
    position: int
    """Its index among the tokens of its sequence."""

    @property
    def entropy_nats(self) -> None:
        """Nothing: its row has told strategies nothing."""
        return None

    @property
    def link(self) -> None:
        """Nothing: an earlier link goes on to hold."""
        return None

    @abstractmethod
    def record(self, sequence: TokenSequence, *, emitted: bool | None) -> UnchosenRecord:
        """Returns the record of the token; arguments as in :class:`Outcome`."""

    def discards(self, sequence: TokenSequence, reason: str) -> list[DiscardRecord]:
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
    """A token that is to end a sequence which gets no entropy any more."""

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
