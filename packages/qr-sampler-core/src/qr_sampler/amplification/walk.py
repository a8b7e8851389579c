# SPDX-License-Identifier: Apache-2.0
"""Amplification by bounded random walks, each of which yields one binary digit of u."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from qr_sampler.amplification.base import AmplificationResult, SignalAmplifier
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.resolution import Resolution
from qr_sampler.arrays import ByteBlocks, FloatArray, MaskArray
from qr_sampler.errors import ConfigError

__all__ = ["MAX_DIGITS", "TYPICAL_WALKS", "RandomWalkAmplifier"]

TYPICAL_WALKS: Final = 32
"""Walks that a block completes on average, at least, when the bound is chosen automatically."""

MAX_DIGITS: Final = 52
"""Digits of u that are used: the midpoint of a cell of 2**-52 is still a float64."""

_WEIGHTS: Final = 0.5 ** np.arange(1, MAX_DIGITS + 1)


class RandomWalkAmplifier(SignalAmplifier):
    """Reads the bits of a block as steps of a walk and its exits at +-bound as the digits of u.

    A one bit is a step up, a zero bit a step down, from the most significant bit of the first byte
    on. Where the walk reaches +bound it yields the digit 1, where it reaches -bound the digit 0,
    and the next bit starts a new walk. The K digits of a block name a cell of width 2**-K, and u is
    its midpoint; an unfinished walk at the end of the block is dropped, and digits after the 52nd
    are not used.

    Mirroring a walk changes the sign of its exit and nothing else, so for fair bits the sign is
    independent of the duration, hence of K: given K, u is exactly uniform on the 2**K midpoints.
    For bits that are one with probability p the digit is 1 with probability
    1 / (1 + ((1 - p) / p)**bound), about 1/2 + bound * (p - 1/2): the gambler's ruin. (Called bias
    amplification by S. A. Wilber, "Advances in mind-matter interaction technology".)

    A walk takes bound**2 bits on average. The bound chosen automatically is the largest for which a
    block holds 32 walks on average, ``isqrt(n // 4)`` and at least 1: 50 at n = 10,240. How many
    digits there really are is in the lattice step of every result. The probability of fewer than k
    is at most 2**k * cos(pi / (3 * bound))**(8 * n), with the automatic bound and n >= 4 at most
    2**k * 2.4e-8: 2**-K * cos(x * pi / (3 * bound)) / cos(pi / (3 * bound))**t is a martingale in
    the number t of bits and the position x of the walk, and its cosine is at least 1/2.

    A baseline is not used: a device whose bits are biased moves u.

    Args:
        bound: Distance at which a walk ends, >= 1; ``None`` chooses by the length of the block.

    Raises:
        ConfigError: When *bound* is not positive.
    """

    def __init__(self, bound: int | None = None) -> None:
        if bound is not None and bound < 1:
            raise ConfigError(f"bound={bound}: the walk needs room; use 1 or more")
        self._bound = bound

    def bound(self, block_bytes: int) -> int:
        """Returns the distance at which the walks of a block of *block_bytes* end."""
        if self._bound is not None:
            return self._bound
        return max(1, math.isqrt(8 * block_bytes // TYPICAL_WALKS))

    def amplify(self, blocks: ByteBlocks, counts: BlockCounts | None = None) -> AmplificationResult:
        """Returns u and the z-score of the digits of every block.

        The statistic is (ups - downs) / sqrt(ups + downs) over all completed walks, 0 if there are
        none, in which case u is 1/2 and the lattice step 1.

        Args:
            blocks: Shape ``(B, n)``, uint8.
            counts: Not needed: the order of the bits matters.
        """
        bound = self.bound(blocks.shape[1])
        u, z, step = np.empty((3, blocks.shape[0]))
        for line, block in enumerate(blocks):
            digits = _exits(block, bound)
            u[line], step[line] = _midpoint(digits[:MAX_DIGITS])
            z[line] = (2 * int(digits.sum()) - digits.size) / math.sqrt(max(digits.size, 1))
        return AmplificationResult(u=u, statistic=z, lattice_step=step)

    def resolution(self, block_bytes: int) -> Resolution:
        """Returns the step that is typical, and an upper bound of the distance.

        The step is that of a block with 8 n / bound**2 walks, the average rounded down. Given K
        digits the distance is 2**-(K + 1); its mean over K is at most
        cos(pi / (3 bound))**(8 n), by the martingale above.
        """
        bits, bound = 8 * block_bytes, self.bound(block_bytes)
        digits = min(max(bits // bound**2, 1), MAX_DIGITS)
        distance = math.cos(math.pi / (3 * bound)) ** bits
        return Resolution(
            lattice_step=2.0**-digits, ks_distance=max(distance, 2.0 ** -(MAX_DIGITS + 1))
        )


def _exits(block: ByteBlocks, bound: int) -> MaskArray:
    """Returns for every completed walk whether it left at the top.

    A walk that starts where its predecessor ended turns the exits into visits: one path over all
    bits, which has an exit whenever it meets a multiple of *bound* other than the last one met.

    Args:
        block: Shape ``(n,)``, uint8.
        bound: Distance at which a walk ends.
    """
    steps = 2 * np.unpackbits(block).view(np.int8) - 1
    path = np.cumsum(steps, dtype=np.int32)
    met = path[path % bound == 0] // bound
    moves = np.diff(met, prepend=np.int32(0))
    exits: MaskArray = moves[moves != 0] > 0
    return exits


def _midpoint(digits: MaskArray) -> tuple[float, FloatArray | float]:
    """Returns the middle and the width of the cell that binary *digits* name."""
    width = 2.0**-digits.size
    return float(_WEIGHTS[: digits.size] @ digits) + width / 2.0, width
