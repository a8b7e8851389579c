# SPDX-License-Identifier: Apache-2.0
"""The control: a uniform number straight from the first bytes, without amplification."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler.amplification.base import AmplificationResult, SignalAmplifier
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.resolution import Resolution
from qr_sampler.arrays import ByteBlocks, FloatArray
from qr_sampler.errors import ConfigError

__all__ = ["UNIFORM_BYTES", "UNIFORM_STEP", "Uniform53Amplifier", "uniform53"]

UNIFORM_BYTES: Final = 7
"""Bytes that :func:`uniform53` reads: 56 bits, of which the first 53 count."""

UNIFORM_STEP: Final = 2.0**-53
"""Distance between neighbouring values of :func:`uniform53`."""

_SPARE_BITS: Final = 8 * UNIFORM_BYTES - 53
_HALF: Final = 2**52


def uniform53(blocks: ByteBlocks) -> FloatArray:
    """Returns u = (k + 1/2) / 2**53 from seven bytes, k being their first 53 bits.

    The bytes are read in big-endian order. Above 1/2 a float64 has no room for the half, which is
    dropped there: u = k / 2**53. So all 2**53 values are distinct, none is 0 or 1, and u is at
    most 2**-54 from the midpoint of its cell.

    Args:
        blocks: Shape ``(B, 7)``, uint8.
    """
    words = np.zeros((blocks.shape[0], 8), dtype=np.uint8)
    words[:, 1:] = blocks
    cells = words.view(">u8")[:, 0] >> _SPARE_BITS
    half: FloatArray = np.where(cells < _HALF, 0.5, 0.0)
    return (cells.astype(np.float64) + half) * UNIFORM_STEP


class Uniform53Amplifier(SignalAmplifier):
    """Takes u from the first seven bytes of a block and leaves the others unused.

    The control condition of an experiment, and what ordinary samplers do: u is exactly uniform on
    2**53 cells, but a bias of the source hardly shows in it, whatever the length of the block. It
    knows no baseline. Set ``sample_count`` to 7 unless the draws have to match those of another
    condition in length.

    Examples:
        >>> Uniform53Amplifier().amplify(np.full((1, 7), 0x80, dtype=np.uint8)).u.round(6)
        array([0.501961])
    """

    def amplify(self, blocks: ByteBlocks, counts: BlockCounts | None = None) -> AmplificationResult:
        """Returns u, which is its own statistic.

        Args:
            blocks: Shape ``(B, n)`` with n >= 7, uint8.
            counts: Not needed.

        Raises:
            ConfigError: When the blocks are shorter.
        """
        self.check_block(blocks.shape[1])
        u = uniform53(blocks[:, :UNIFORM_BYTES])
        return AmplificationResult(u=u, statistic=u, lattice_step=np.array(UNIFORM_STEP))

    def check_block(self, block_bytes: int) -> None:
        """Refuses blocks of less than seven bytes.

        Raises:
            ConfigError: Saying so.
        """
        if block_bytes < UNIFORM_BYTES:
            raise ConfigError(
                f"uniform53 reads {UNIFORM_BYTES} bytes and the block has {block_bytes}; "
                f"use blocks of {UNIFORM_BYTES} bytes or more"
            )

    def resolution(self, block_bytes: int) -> Resolution:
        """Returns a step and a distance of 2**-53, for any block that is long enough.

        Raises:
            ConfigError: When the block is too short.
        """
        self.check_block(block_bytes)
        return Resolution(lattice_step=UNIFORM_STEP, ks_distance=UNIFORM_STEP)
