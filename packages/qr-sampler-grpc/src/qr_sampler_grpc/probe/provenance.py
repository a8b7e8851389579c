# SPDX-License-Identifier: Apache-2.0
"""What a server reports about its bytes, as seen in its draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qr_sampler.entropy import EntropyDraw
from qr_sampler_grpc.conformance.calls import wall_anchor_ns
from qr_sampler_grpc.conformance.rules import clock_offset_ns

__all__ = ["ClockOffset", "Provenance", "provenance_of"]

_NS_PER_MS: Final = 1e6
_TOLERANCE_NS: Final = 5_000_000
"""Stamps of a coarse clock are early by its resolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockOffset:
    """How far the clock of the device is ahead of this machine's, by its stamps."""

    at_least_ms: float
    """Lower bound in milliseconds."""
    at_most_ms: float
    """Upper bound; below the lower one where a stamp was not made between request and answer."""

    @property
    def is_consistent(self) -> bool:
        """Whether one offset explains all stamps."""
        return self.at_least_ms <= self.at_most_ms + _TOLERANCE_NS / _NS_PER_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What came along with the bytes."""

    device_ids: tuple[str, ...]
    """Every identity that was reported."""
    commitment_echoed: bool | None
    """Whether commitments came back; ``None`` where none was sent."""
    commitment_words: str
    """Why that is not known, else empty."""
    sequence_id_echoed: bool | None
    """Whether answers name their request; ``None`` where that is not known."""
    sequence_id_words: str
    """Why it is not known, else empty."""
    signature_verified: bool | None
    """Whether the signature is that of the public key; ``None`` without one."""
    signature_words: str
    """What is known of the signature."""
    clock: ClockOffset | None
    """Offset of the clock; ``None`` without stamps."""


def provenance_of(
    draws: Sequence[EntropyDraw],
    *,
    commitment_words: str,
    sequence_id_echoed: bool | None,
    sequence_id_words: str,
    signature_verified: bool | None,
    signature_words: str,
) -> Provenance:
    """Returns what *draws* have shown, and what else is known.

    Args:
        draws: Draws of every mode.
        commitment_words: Why no commitment was sent; nothing where one was.
        sequence_id_echoed: See :class:`Provenance`.
        sequence_id_words: See there.
        signature_verified: Outcome of a draw with the public key.
        signature_words: What is known of the signature.
    """
    echoes = [draw.commitment_echoed for draw in draws if draw.commitment_echoed is not None]
    return Provenance(
        device_ids=tuple(dict.fromkeys(draw.device_id for draw in draws if draw.device_id)),
        commitment_echoed=all(echoes) if echoes else None,
        commitment_words=commitment_words,
        sequence_id_echoed=sequence_id_echoed,
        sequence_id_words=sequence_id_words,
        signature_verified=signature_verified,
        signature_words=signature_words,
        clock=_clock(draws),
    )


def _clock(draws: Sequence[EntropyDraw]) -> ClockOffset | None:
    # Monotonic times, so that a step of the wall clock during the probe does no harm.
    stamps = [
        (draw.requested_ns, draw.device_timestamp_ns, draw.received_ns)
        for draw in draws
        if draw.device_timestamp_ns is not None
    ]
    if not stamps:
        return None
    anchor_ns = wall_anchor_ns()
    lowest, highest = clock_offset_ns(stamps)
    return ClockOffset(
        at_least_ms=(lowest - anchor_ns) / _NS_PER_MS,
        at_most_ms=(highest - anchor_ns) / _NS_PER_MS,
    )
