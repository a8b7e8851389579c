# SPDX-License-Identifier: Apache-2.0
"""What is known of the devices behind a kind of source, for the table of devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from qr_sampler.entropy.draw import JitClass

__all__ = ["BLOCK_SIZES", "DeviceNote", "transfer_ms"]

BLOCK_SIZES: Final = (64, 1_024, 10_240)
"""Sizes in bytes of the blocks for which the time of one token is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNote:
    """One device, or one family of them, that a kind of source can read.

    A source that reads several has one note for each in
    :attr:`~qr_sampler.EntropySource.device_notes`.

    Raises:
        ValueError: When a text is empty or a number is not positive.
    """

    device: str
    """The device as its vendor calls it."""
    reached_by: str
    """How software talks to it, and which setting names it."""
    rate_bytes_per_s: float | None
    """Bytes that it delivers in a second; ``None`` if nobody says."""
    ms_per_token: Mapping[int, float] = field(default_factory=dict)
    """Milliseconds from the request to the last byte of one token's block, by its size in bytes
    (:data:`BLOCK_SIZES`). Empty if nobody knows; :func:`transfer_ms` if the rate is all there is to
    it."""
    jit_class: JitClass
    """How far the just-in-time claim reaches for this device."""
    conditioning: str
    """What is done to its raw bits."""
    basis: str
    """Where the figures come from: ``"measured here"``, ``"measured with the simulator"``,
    ``"vendor"``, or several of these with what each one covers."""

    def __post_init__(self) -> None:
        for name in ("device", "reached_by", "conditioning", "basis"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} of the note on {self.device!r} must not be empty")
        numbers = (self.rate_bytes_per_s, *self.ms_per_token, *self.ms_per_token.values())
        if not all(number is None or number > 0 for number in numbers):
            raise ValueError(f"rates, sizes and times of {self.device!r} must be positive")


def transfer_ms(rate_bytes_per_s: float) -> dict[int, float]:
    """Returns how many milliseconds a block of each size takes at a rate, which must be positive.

    That is the block divided by the rate: the time of flushing, of the system and of the way there
    come on top.

    Examples:
        >>> transfer_ms(102_400)
        {64: 0.625, 1024: 10.0, 10240: 100.0}
    """
    return {size: 1000 * size / rate_bytes_per_s for size in BLOCK_SIZES}
