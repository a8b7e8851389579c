# SPDX-License-Identifier: Apache-2.0
"""The contract of signal amplifiers: a block of bytes becomes one uniform number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qr_sampler._typing import ByteBlocks, FloatArray

if TYPE_CHECKING:
    from qr_sampler.settings import Settings

__all__ = ["U_MAX", "U_MIN", "AmplificationResult", "SignalAmplifier", "clamp_to_open_interval"]

U_MAX: Final = 1.0 - 2.0**-53
"""Largest float64 below 1."""

U_MIN: Final = 2.0**-53
"""The mirror image of :data:`U_MAX`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmplificationResult:
    """What an amplifier made of B blocks."""

    u: FloatArray
    """Shape ``(B,)``, in the open interval (0, 1)."""
    statistic: FloatArray
    """Shape ``(B,)``, the amplifier's test statistic before it was mapped to *u*."""


class SignalAmplifier(ABC):
    """Turns blocks of bytes into uniform numbers. Stateless and free of randomness of its own."""

    @classmethod
    def from_settings(cls, settings: Settings) -> SignalAmplifier:
        """Returns the amplifier configured for a deployment."""
        return cls()

    @abstractmethod
    def amplify(self, blocks: ByteBlocks) -> AmplificationResult:
        """Returns one u per block.

        Args:
            blocks: Shape ``(B, n)`` with n >= 1, uint8.
        """


def clamp_to_open_interval(u: FloatArray) -> FloatArray:
    """Returns *u* with 0 and 1 replaced by the nearest numbers inside the open interval (0, 1).

    A float64 distribution function reaches exactly 1 some 8.3 standard deviations out; the clamp
    moves a mass of less than 1e-16.
    """
    return np.clip(u, U_MIN, U_MAX)
