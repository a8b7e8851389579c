# SPDX-License-Identifier: Apache-2.0
"""The contract of signal amplifiers: a block of bytes becomes one uniform number."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.resolution import Resolution
from qr_sampler.arrays import ByteBlocks, FloatArray

if TYPE_CHECKING:
    from qr_sampler.settings import EnvironmentSettings, Settings

__all__ = [
    "U_MAX",
    "U_MIN",
    "AmplificationResult",
    "Labels",
    "SignalAmplifier",
    "clamp_to_open_interval",
    "shared_array",
]

U_MAX: Final = 1.0 - 2.0**-53
"""Largest float64 below 1."""

U_MIN: Final = 2.0**-53
"""The mirror image of :data:`U_MAX`."""

Labels: TypeAlias = NDArray[np.str_]
"""One text per row."""


def shared_array(value: float | str) -> NDArray[Any]:
    """Returns an array of shape ``()`` that nobody can change."""
    array = np.array(value)
    array.flags.writeable = False
    return array


class AmplificationResult(NamedTuple):
    """What an amplifier made of B blocks.

    A tuple, because making a frozen dataclass takes as long as adding up a block. In a
    :class:`~qr_sampler.StepResult` every array has shape ``(B,)``.
    """

    u: FloatArray
    """Shape ``(B,)``, in the open interval (0, 1)."""
    statistic: FloatArray
    """Shape ``(B,)``, the amplifier's test statistic before it was mapped to *u*."""
    lattice_step: FloatArray = shared_array(math.nan)
    """Shape ``(B,)``, or ``()`` where all blocks share it: distance between neighbouring values of
    u near the median. NaN when the amplifier does not say."""
    baseline: Labels = shared_array("")
    """Shape ``(B,)`` or ``()``: digest of the frozen baseline that u refers to, empty for the ideal
    source."""


class SignalAmplifier(ABC):
    """Turns blocks of bytes into uniform numbers. Stateless and free of randomness of its own.

    Must be overridden: :meth:`amplify`, with both of its parameters. Worth overriding when there is
    something to say: :meth:`from_settings`, :attr:`recorded_settings`, :attr:`secrets`,
    :meth:`check_block`, :meth:`resolution` and :meth:`without_baseline`.

    Threads: an instance is shared and may be called from several threads at once.
    """

    settings_model: ClassVar[type[EnvironmentSettings] | None] = None
    """The model of its own settings, for ``qr-sampler settings`` and ``doctor``; ``None`` for an
    amplifier without any."""

    @classmethod
    def from_settings(cls, settings: Settings) -> SignalAmplifier:
        """Returns the amplifier configured for a deployment.

        Raises:
            ConfigError: When the deployment lacks what the amplifier needs.
        """
        return cls()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must stay secret; they are masked in what is recorded of its settings."""
        return ()

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        """The settings that are in use, for the first line of a ledger; never a secret one."""
        return {}

    @abstractmethod
    def amplify(self, blocks: ByteBlocks, counts: BlockCounts | None = None) -> AmplificationResult:
        """Returns one u per block.

        Args:
            blocks: Shape ``(B, n)`` with n >= 1, uint8. Read only, and not kept.
            counts: Counts the bytes and bits of *blocks*, for an amplifier that needs to know;
                the records need them, too, so they are counted once.

        Raises:
            ConfigError: When :meth:`check_block` refuses blocks of n bytes.
        """

    def check_block(self, block_bytes: int) -> None:
        """Refuses blocks that are too short or of the wrong length; by default none.

        Raises:
            ConfigError: Saying which lengths are possible.
        """
        return

    def resolution(self, block_bytes: int) -> Resolution | None:
        """Returns how fine and how uniform u is for blocks of *block_bytes*, ``None`` if unknown.

        Asked when a request is admitted, which refuses what exceeds ``max_ks_distance``. A costly
        answer ought to be cached.

        Raises:
            ConfigError: When :meth:`check_block` refuses such blocks.
        """
        return None

    def without_baseline(self) -> SignalAmplifier:
        """Returns the amplifier for bytes that its baseline does not describe: a fallback's."""
        return self


def clamp_to_open_interval(u: FloatArray) -> FloatArray:
    """Returns *u* with 0 and 1 replaced by the nearest numbers inside the open interval (0, 1).

    A float64 distribution function reaches exactly 1 some 8.3 standard deviations out; the clamp
    moves a mass of less than 1e-16.
    """
    return np.minimum(np.maximum(u, U_MIN), U_MAX)
