# SPDX-License-Identifier: Apache-2.0
"""Entries to be recorded: records, and rows of steps from which records can be made.

A step only says what has become of each of its rows. The writer makes the records, while no step
waits for it, and only if they are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

from qr_sampler.admission.overrides import RequestOptions
from qr_sampler.records import DiscardRecord, Record, TokenSamplingRecord
from qr_sampler.records.accounting import discard_record, token_record
from qr_sampler.sampling.columns import StepColumns

__all__ = [
    "DiscardEntry",
    "Entry",
    "NamedSequence",
    "RecordedToken",
    "TokenEntry",
    "records_of",
]


class NamedSequence(Protocol):
    """The part of a sequence that its records contain, constant while it lives."""

    @property
    def request_key(self) -> str:
        """Names its request."""

    @property
    def name(self) -> str:
        """Names the sequence."""

    @property
    def options(self) -> RequestOptions:
        """The options of its request."""


class TokenEntry(NamedTuple):
    """A token that was emitted, as far as is known."""

    step: StepColumns
    """The step that selected it."""
    row: int
    """Which of the step's decided rows it is."""
    sequence: NamedSequence
    """Its sequence."""
    position: int
    """Its index in its sequence."""
    draft_outcome: str | None
    """The fate of the draft in its place, where drafts are verified."""
    emitted: bool | None
    """Whether it was emitted; ``None`` when that is not known."""

    def record(self) -> TokenSamplingRecord:
        """Returns its record."""
        return token_record(
            self.step,
            self.row,
            request_key=self.sequence.request_key,
            sequence=self.sequence.name,
            position=self.position,
            options=self.sequence.options,
            outcome=self.draft_outcome,
            emitted=self.emitted,
        )


class RecordedToken(NamedTuple):
    """A token that is not a row of a step, with what its record lacks."""

    token: TokenSamplingRecord
    """Its record."""
    fallback_from: str
    """Source that was to supply the bytes which came from the fallback; empty if none did."""

    def record(self) -> TokenSamplingRecord:
        """Returns its record."""
        return self.token


class DiscardEntry(NamedTuple):
    """The bytes of a token that was not emitted."""

    step: StepColumns
    """The step that spent them."""
    row: int
    """Which of the step's decided rows they belong to."""
    sequence: NamedSequence
    """The sequence that they were for."""
    position: int
    """Index that the token would have had."""
    reason: str
    """Why it was not emitted."""

    def record(self) -> DiscardRecord:
        """Returns their record."""
        return discard_record(
            self.step,
            self.row,
            request_key=self.sequence.request_key,
            sequence=self.sequence.name,
            position=self.position,
            reason=self.reason,
        )


Entry: TypeAlias = Record | TokenEntry | RecordedToken | DiscardEntry
"""A line of the ledger, made already or not."""


def records_of(entries: Iterable[Entry]) -> list[Record]:
    """Returns the records of *entries*, in order."""
    return [entry if isinstance(entry, Record) else entry.record() for entry in entries]
