# SPDX-License-Identifier: Apache-2.0
"""What is kept of everything else that happens to a sequence, and of wasted bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from qr_sampler.records.kinds.record import Record

__all__ = [
    "BypassRecord",
    "DiscardRecord",
    "EmissionRecord",
    "ForcedRecord",
    "UnchosenRecord",
    "UndecidedRecord",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BypassRecord(Record):
    """A sequence whose tokens the host engine chooses: nothing is drawn, and no token recorded."""

    kind: ClassVar[str] = "bypass"

    request_key: str | None
    """The client's ``qr_request_key``, if it named the request."""
    wall_time_ns: int
    """When the engine took the sequence in, in nanoseconds since the epoch."""
    trial: str | None = None
    """The client's trial label."""
    condition: str | None = None
    """The client's condition label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnchosenRecord(Record):
    """One emitted token that no entropy decided."""

    request_key: str
    """Names the request, as in ``TokenSamplingRecord``."""
    sequence: str
    """Names the sequence, as there."""
    position: int
    """Index of the token in its sequence, from 0."""
    token_id: int
    """The token."""
    reason: str
    """Why no entropy decided it."""
    wall_time_ns: int
    """When it was recorded, in nanoseconds since the epoch."""
    trial: str | None = None
    """The client's trial label."""
    condition: str | None = None
    """The client's condition label."""
    emitted: bool | None = True
    """Whether it was emitted, as in ``TokenSamplingRecord``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedRecord(UnchosenRecord):
    """Ends a request for which there was no entropy; *reason* says why there was none."""

    kind: ClassVar[str] = "forced"

    source: str
    """The source that the request had chosen."""

    @classmethod
    @cache
    def columns(cls) -> tuple[str, ...]:
        """Returns the names of its fields, the source behind the reason."""
        names = list(UnchosenRecord.columns())
        names.insert(names.index("reason") + 1, "source")
        return tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class UndecidedRecord(UnchosenRecord):
    """A token whose row of logits had no distribution to draw from.

    It is the one where the logits were largest, in the order in which NaN is above all; or the one
    that ends the request, if the operator ends such requests. The reason is ``masked`` when no
    token was allowed, ``nan`` when a logit was no number, ``infinite`` when one was +inf.
    """

    kind: ClassVar[str] = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmissionRecord(Record):
    """What became of a token whose record, further up, could not tell: its ``emitted`` is null."""

    kind: ClassVar[str] = "emission"

    request_key: str
    """Names the request, as in that record."""
    sequence: str
    """Names the sequence, as there."""
    position: int
    """Index of the token in its sequence, as there."""
    token_id: int
    """The token, as there."""
    emitted: bool
    """Whether it was emitted. If not, another token takes its position, or none does."""
    reason: str
    """Why it was not, or empty."""
    wall_time_ns: int
    """When this showed, in nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardRecord(Record):
    """Bytes that were drawn and decided no emitted token.

    Those that a source delivered too late, or not in full, belong to no token at all: their fields
    that tell of one are empty.
    """

    kind: ClassVar[str] = "discard"

    request_key: str
    """Names the request, as in ``TokenSamplingRecord``; empty for bytes of no token."""
    sequence: str
    """Names the sequence, as there; empty for bytes of no token."""
    position: int | None
    """Index that the token would have had."""
    reason: str
    """Why it was not emitted, or why the bytes were dropped."""
    source: str
    """Source that supplied the bytes."""
    fallback: bool
    """Whether they came from the fallback."""
    block_bytes: int
    """Number of bytes that were spent."""
    u: float | None
    """The uniform number that decided nothing."""
    t_logits_ns: int | None
    """When the logits were complete, on the monotonic clock."""
    t_request_ns: int | None
    """When the entropy request left, on the same clock."""
    t_received_ns: int | None
    """When its answer was complete, on the same clock."""
    wall_time_ns: int
    """When its answer was complete or dropped, in nanoseconds since the epoch."""
    commitment: str = ""
    """Digest that the source was told with the request, as in ``TokenSamplingRecord``."""
    row_digest: str = ""
    """This row's part of it."""
    role: str | None = None
    """What the bytes were to decide where several numbers take part in a token, as in
    ``TokenSamplingRecord.uniforms``."""
    jit: bool = True
    """Whether they were asked for when the logits were complete."""
    log_q: float | None = None
    """Of a draft, the natural logarithm of its probability under its proposal."""
    unit_ns: int | None = None
    """Of a draft, how long its sampling unit took, in nanoseconds."""
