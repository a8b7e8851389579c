# SPDX-License-Identifier: Apache-2.0
"""Uniform numbers that the far side has made of its bytes itself."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler.amplification.base import (
    AmplificationResult,
    SignalAmplifier,
    clamp_to_open_interval,
)
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.resolution import Resolution
from qr_sampler.arrays import ByteBlocks
from qr_sampler.errors import ConfigError

__all__ = ["ServerAmplifier"]

_NUMBER_BYTES: Final = 8
_STEP: Final = 2.0**-64
_ULP: Final = 2.0**-53
_HALF_FITS: Final = 2**53


class ServerAmplifier(SignalAmplifier):
    """Takes u as the source delivers it: eight bytes that are the whole number floor(u * 2**64).

    For a source that integrates blocks itself and hands out the numbers; ``sample_count`` is then 8
    and says nothing of how much was integrated. The bytes of any other source are such a number,
    too, and uniform if they are, so a fallback needs no care.

    Examples:
        >>> ServerAmplifier().amplify(np.array([[0x40, 0, 0, 0, 0, 0, 0, 0]], dtype=np.uint8)).u
        array([0.25])
    """

    def amplify(self, blocks: ByteBlocks, counts: BlockCounts | None = None) -> AmplificationResult:
        """Returns u, which is its own statistic: k / 2**64, or (k + 1/2) / 2**64 below 2**-11.

        A number u from 2**-11 on is a multiple of 2**-64, so it comes back exactly.

        Args:
            blocks: Shape ``(B, 8)``, uint8: k, most significant byte first.
            counts: Not needed.

        Raises:
            ConfigError: When the blocks have another length.
        """
        self.check_block(blocks.shape[1])
        numbers = np.ascontiguousarray(blocks).view(">u8")[:, 0]
        half = np.where(numbers < _HALF_FITS, 0.5, 0.0)
        u = clamp_to_open_interval((numbers.astype(np.float64) + half) * _STEP)
        return AmplificationResult(u=u, statistic=u, lattice_step=np.array(_ULP))

    def check_block(self, block_bytes: int) -> None:
        """Refuses blocks that are not one number.

        Raises:
            ConfigError: Saying how many bytes there must be.
        """
        if block_bytes != _NUMBER_BYTES:
            raise ConfigError(
                f"the amplifier 'server' takes numbers of {_NUMBER_BYTES} bytes and the block has "
                f"{block_bytes}; set sample_count to {_NUMBER_BYTES}"
            )

    def resolution(self, block_bytes: int) -> Resolution:
        """Returns the spacing of float64 numbers; how uniform u is, the far side has to know.

        Raises:
            ConfigError: When the block has another length.
        """
        self.check_block(block_bytes)
        return Resolution(lattice_step=_ULP, ks_distance=_ULP)
