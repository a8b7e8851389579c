# SPDX-License-Identifier: Apache-2.0
"""What a source delivers: the bytes together with the story of how they came to be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from qr_sampler.components.registry import Origin
from qr_sampler.health.policy import HealthState

__all__ = ["DroppedBytes", "EntropyDraw", "JitClass", "Origin", "SourceLimits", "SourceStatus"]


class JitClass(Enum):
    """How far the claim "measured after the request" reaches for a source."""

    ATTESTED = "A"
    """The device stamps or signs a measurement made after the request."""
    FLUSHED = "B"
    """A local buffer of known size is discarded before the read."""
    REMOTE = "C"
    """The request leaves after the logits; what the far side does cannot be seen."""
    BEACON = "D"
    """Public values that everyone knows at a scheduled time."""
    PSEUDO = "P"
    """Pseudo-random: a control, not a measurement."""
    UNKNOWN = "U"
    """Nothing bounds the age of the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLimits:
    """What a source accepts, so that a caller splits or refuses a draw before spending any."""

    max_bytes_per_request: int | None = None
    """Largest single request in bytes; ``None`` means unlimited."""
    max_requests_per_minute: float | None = None
    """Request quota; ``None`` means unlimited."""
    max_bytes_per_day: int | None = None
    """Daily byte quota; ``None`` means unlimited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """What is known about a source without touching its device."""

    available: bool
    """Whether the next draw is expected to succeed."""
    reason: str = ""
    """Why not, or a remark worth showing."""


_DIRECTLY_CONSTRUCTED: Final = Origin()


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyDraw:
    """One request to a source and its answer.

    Provenance lives in this value, never on the source object, where rows and threads would race.
    """

    data: bytes
    """The bytes, exactly as many as requested."""
    source: str
    """Name of the source that supplied *data* (the fallback's own name after a fallback)."""
    origin: Origin = _DIRECTLY_CONSTRUCTED
    """Distribution that the supplying source came from."""
    requested_ns: int
    """``time.monotonic_ns()`` just before the request left."""
    received_ns: int
    """``time.monotonic_ns()`` when the last byte was here."""
    wall_time_ns: int
    """``time.time_ns()`` when the last byte was here."""
    fallback: bool = False
    """Whether another source than the configured one supplied the bytes."""
    fallback_from: str = ""
    """Name of the source that was to supply them."""
    fallback_reason: str = ""
    """That name, and why it did not supply them."""
    device_id: str = ""
    """Identity that the device or server reported."""
    device_timestamp_ns: int | None = None
    """Time of measurement that the device or server reported, on its own clock."""
    requests: int = 1
    """Number of requests that the draw was split into."""
    commitment_echoed: bool | None = None
    """Whether the far side echoed our commitment; ``None`` when none was sent."""
    signature_verified: bool | None = None
    """Whether the far side's signature of the answer was verified; ``None`` if there is no key to
    verify it with. A wrong signature makes the draw fail."""
    dropped_bytes: int = 0
    """Bytes of earlier attempts at this draw that were requested and are lost."""
    signature: bytes = b""
    """The far side's signature, at most 512 bytes; empty if the answer had none, or if several
    answers had one each."""
    sequence_id: int | None = None
    """The number of the request that :attr:`signature` covers."""
    health: HealthState = HealthState.UNTESTED
    """What the health tests say of *data*. Set by the guard of the source, whatever the source
    itself has put there; bytes of a failed source are in no draw."""

    def judged(self, health: HealthState) -> EntropyDraw:
        """Returns the draw itself with its :attr:`health` filled in; for the guard alone.

        A guard has just received it and hands it out once, so nobody else sees it change. A copy
        would take longer than the tests of a short draw.
        """
        object.__setattr__(self, "health", health)
        return self

    def without_data(self) -> EntropyDraw:
        """Returns the provenance alone, to be kept: :attr:`data` is empty."""
        return EntropyDraw(
            data=b"",
            source=self.source,
            origin=self.origin,
            requested_ns=self.requested_ns,
            received_ns=self.received_ns,
            wall_time_ns=self.wall_time_ns,
            fallback=self.fallback,
            fallback_from=self.fallback_from,
            fallback_reason=self.fallback_reason,
            device_id=self.device_id,
            device_timestamp_ns=self.device_timestamp_ns,
            requests=self.requests,
            commitment_echoed=self.commitment_echoed,
            signature_verified=self.signature_verified,
            dropped_bytes=self.dropped_bytes,
            signature=self.signature,
            sequence_id=self.sequence_id,
            health=self.health,
        )


@dataclass(frozen=True, slots=True)
class DroppedBytes:
    """Bytes that a source delivered and that decided nothing."""

    source: str
    """Name of the source."""
    count: int
    """How many."""
    reason: str
    """Why they were dropped: the answer was ``"late"``, ``"short"`` or ``"long"``, another part of
    the draw ``"failed"``, an attempt at it was lost and ``"retried"``, or the answer, or what an
    amplifier has made of it, was ``"unfit"``; ``"startup_test"`` for bytes that were drawn to test
    the source, and ``"health: <test> <value> >= <cutoff>"`` for those that show it has failed."""
    wall_time_ns: int
    """``time.time_ns()`` when they were."""
