# SPDX-License-Identifier: Apache-2.0
"""Entries to be recorded: records, and rows of steps from which records can be made.

A step only says what has become of each of its rows. The writer makes the records, while no step
waits for it, and only if they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from qr_sampler.admission.overrides import RequestOptions
from qr_sampler.entropy.draw import EntropyDraw
from qr_sampler.records import (
    DiscardRecord,
    EmissionRecord,
    Record,
    TokenSamplingRecord,
    UnchosenRecord,
)
from qr_sampler.records.accounting import discard_record, token_record
from qr_sampler.sampling.columns import StepColumns

__all__ = [
    "DiscardEntry",
    "DrawnNumber",
    "Entry",
    "NamedSequence",
    "Prompt",
    "RecordedDiscard",
    "RecordedDraw",
    "RecordedToken",
    "RequestFacts",
    "SequenceEnd",
    "SequenceRecord",
    "TokenEntry",
    "kind_of",
    "records_of",
]


class Prompt:
    """The token ids of a prompt, from when a host hands them over until they are written."""

    __slots__ = ("__weakref__", "_ids", "digest", "overflowed")

    def __init__(self) -> None:
        self._ids: Sequence[int] | None = None
        self.digest = ""
        """Keyed digest of the ids, hexadecimal; empty as long as nobody has computed it."""
        self.overflowed = False
        """Whether there was no room for the ids, and nobody has said so yet."""

    @property
    def waiting(self) -> int:
        """Number of ids that are kept."""
        ids = self._ids
        return 0 if ids is None else len(ids)

    def keep(self, ids: Sequence[int]) -> None:
        """Keeps *ids*, which must not change any more."""
        self._ids = ids

    def take(self) -> Sequence[int] | None:
        """Returns the ids and forgets them; ``None`` if there are none."""
        ids, self._ids = self._ids, None
        return ids


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What is recorded of a request beside its options, as far as the host knows it."""

    prompt_tokens: int | None = None
    """Number of tokens of its prompt."""
    prompt_digest: str = ""
    """Keyed SHA-256 of their ids, hexadecimal, if the host has computed one; empty if not."""
    prompt: Prompt = field(default_factory=Prompt)
    """The ids, if the host hands them over."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Those of its ordinary fields that change its logits, as JSON-ready values."""
    wall_time_ns: int = 0
    """When the engine took it in, in nanoseconds since the epoch."""


class NamedSequence(Protocol):
    """The part of a sequence that its records contain, constant while it lives.

    There can be weak references to it.
    """

    @property
    def request_key(self) -> str:
        """Names its request."""

    @property
    def name(self) -> str:
        """Names the sequence."""

    @property
    def options(self) -> RequestOptions:
        """The options of its request."""

    @property
    def request(self) -> RequestFacts:
        """What else is known of its request."""

    @property
    def stop_facts(self) -> dict[str, Any]:
        """What ends it, as JSON-ready values."""


class RecordedDraw(Protocol):
    """A draw as the ledger tells of it. Equal only to itself."""

    @property
    def draw(self) -> EntropyDraw:
        """The draw without its bytes."""

    @property
    def draw_bytes(self) -> int:
        """How many bytes it has brought."""

    @property
    def data_sha256(self) -> str:
        """SHA-256 of these bytes, hexadecimal; empty if nobody has computed it."""

    @property
    def data(self) -> bytes | None:
        """These bytes; ``None`` if nobody keeps them."""

    @property
    def commitment(self) -> str:
        """Digest that travelled with the request, hexadecimal; empty if none did."""

    @property
    def rows_told(self) -> Sequence[str]:
        """Digests of all rows that the commitment covers, hexadecimal.

        None where each of them is in the line of a token or of bytes.
        """

    @property
    def logits_ready_ns(self) -> int | None:
        """When the logits were complete; ``None`` if they were not when it was requested."""


class DrawnNumber(NamedTuple):
    """Where the bytes of a number are."""

    draw: RecordedDraw
    """The draw."""
    offset: int
    """Index of their first one in the draw."""


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
    sequence: NamedSequence | None = None
    """Its sequence."""
    numbers: tuple[DrawnNumber, ...] = ()
    """Where its numbers are, one for each of :attr:`~qr_sampler.TokenSamplingRecord.uniforms`."""
    deciding: int = 0
    """Index of the one that decided it."""
    told: RecordedDraw | None = None
    """The draw whose request told of its row; ``None`` if none did, or the one that decided it."""

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


class RecordedDiscard(NamedTuple):
    """The bytes of numbers that are no row of a step."""

    discard: DiscardRecord
    """Their record."""
    sequence: NamedSequence
    """The sequence that they were for."""
    number: DrawnNumber
    """Where they are."""

    def record(self) -> DiscardRecord:
        """Returns their record."""
        return self.discard


class SequenceRecord(NamedTuple):
    """A record without bytes, with the sequence that it belongs to."""

    made: UnchosenRecord | EmissionRecord
    """The record."""
    sequence: NamedSequence
    """The sequence."""

    def record(self) -> UnchosenRecord | EmissionRecord:
        """Returns the record."""
        return self.made


class SequenceEnd(NamedTuple):
    """The end of a sequence, which has a line of its own and no record."""

    sequence: NamedSequence
    """The sequence."""
    tokens: int
    """How many of its tokens are known to have been emitted."""
    reason: str
    """Why it is over: ``stop``, ``forced``, ``departed`` or ``closed``."""
    link: str
    """What would tie a further token to it, hexadecimal; empty without commitments."""
    wall_time_ns: int
    """When this showed, in nanoseconds since the epoch."""


Entry: TypeAlias = (
    Record
    | TokenEntry
    | RecordedToken
    | DiscardEntry
    | RecordedDiscard
    | SequenceRecord
    | SequenceEnd
)
"""A line of the ledger, made already or not."""


def records_of(entries: Iterable[Entry]) -> list[Record]:
    """Returns the records of *entries*, in order; the end of a sequence has none."""
    return [
        entry if isinstance(entry, Record) else entry.record()
        for entry in entries
        if not isinstance(entry, SequenceEnd)
    ]


_KINDS: Final = {
    TokenEntry: "token",
    RecordedToken: "token",
    DiscardEntry: "discard",
    RecordedDiscard: "discard",
    SequenceEnd: "end",
}


def kind_of(entry: Entry) -> str:
    """Returns the kind of the line that *entry* becomes."""
    if isinstance(entry, SequenceRecord):
        return entry.made.kind
    if isinstance(entry, Record):
        return entry.kind
    return _KINDS[type(entry)]
