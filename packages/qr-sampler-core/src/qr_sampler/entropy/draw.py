# SPDX-License-Identifier: Apache-2.0
"""What a source delivers: the bytes together with the story of how they came to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from qr_sampler.components.registry import Origin

__all__ = ["EntropyDraw", "JitClass", "Origin", "SourceLimits", "SourceStatus"]


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


_DIRECTLY_CONSTRUCTED: Final = Origin()


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


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class EntropyDraw:
    """One request to a source and its answer.

    Provenance lives in this value, never on the source object, where rows and threads would race.
    """

    data: bytes
    """The bytes, exactly as many as were asked for."""
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
    fallback_reason: str = ""
    """Why the configured source did not supply them."""
    device_id: str = ""
    """Identity that the device or server reported."""
    device_timestamp_ns: int | None = None
    """Time of measurement that the device or server reported, on its own clock."""
    requests: int = 1
    """Number of requests that the draw was split into."""
    commitment_echoed: bool | None = None
    """Whether the far side echoed our commitment; ``None`` when none was sent."""
    signature_verified: bool | None = None
    """Whether the far side's signature of the answer was checked and is right; ``None`` when there
    is no key to check it with. A wrong one is no draw at all."""
    dropped_bytes: int = 0
    """Bytes of earlier attempts at this draw that were asked for and are lost."""

    # What a dataclass would generate looks each field up by its name, and takes nearly twice
    # as long: a noticeable part of a draw from a fast device.
    def __init__(
        self,
        *,
        data: bytes,
        source: str,
        origin: Origin = _DIRECTLY_CONSTRUCTED,
        requested_ns: int,
        received_ns: int,
        wall_time_ns: int,
        fallback: bool = False,
        fallback_reason: str = "",
        device_id: str = "",
        device_timestamp_ns: int | None = None,
        requests: int = 1,
        commitment_echoed: bool | None = None,
        signature_verified: bool | None = None,
        dropped_bytes: int = 0,
    ) -> None:
        _set_data(self, data)
        _set_source(self, source)
        _set_origin(self, origin)
        _set_requested_ns(self, requested_ns)
        _set_received_ns(self, received_ns)
        _set_wall_time_ns(self, wall_time_ns)
        _set_fallback(self, fallback)
        _set_fallback_reason(self, fallback_reason)
        _set_device_id(self, device_id)
        _set_device_timestamp_ns(self, device_timestamp_ns)
        _set_requests(self, requests)
        _set_commitment_echoed(self, commitment_echoed)
        _set_signature_verified(self, signature_verified)
        _set_dropped_bytes(self, dropped_bytes)

    def without_data(self) -> EntropyDraw:
        """Returns the provenance alone, for whoever keeps it: :attr:`data` is empty."""
        return EntropyDraw(
            data=b"",
            source=self.source,
            origin=self.origin,
            requested_ns=self.requested_ns,
            received_ns=self.received_ns,
            wall_time_ns=self.wall_time_ns,
            fallback=self.fallback,
            fallback_reason=self.fallback_reason,
            device_id=self.device_id,
            device_timestamp_ns=self.device_timestamp_ns,
            requests=self.requests,
            commitment_echoed=self.commitment_echoed,
            signature_verified=self.signature_verified,
            dropped_bytes=self.dropped_bytes,
        )


def _setter(name: str) -> Callable[[EntropyDraw, object], None]:
    """Returns what sets one field of a draw, frozen or not."""
    setter: Callable[[EntropyDraw, object], None] = EntropyDraw.__dict__[name].__set__
    return setter


_set_data: Final = _setter("data")
_set_source: Final = _setter("source")
_set_origin: Final = _setter("origin")
_set_requested_ns: Final = _setter("requested_ns")
_set_received_ns: Final = _setter("received_ns")
_set_wall_time_ns: Final = _setter("wall_time_ns")
_set_fallback: Final = _setter("fallback")
_set_fallback_reason: Final = _setter("fallback_reason")
_set_device_id: Final = _setter("device_id")
_set_device_timestamp_ns: Final = _setter("device_timestamp_ns")
_set_requests: Final = _setter("requests")
_set_commitment_echoed: Final = _setter("commitment_echoed")
_set_signature_verified: Final = _setter("signature_verified")
_set_dropped_bytes: Final = _setter("dropped_bytes")
