# SPDX-License-Identifier: Apache-2.0
"""Amplification without a lattice: the exact law of the sum, its ties broken by spare bytes."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Final

import numpy as np

from qr_sampler.amplification.base import (
    AmplificationResult,
    SignalAmplifier,
    clamp_to_open_interval,
)
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.control import UNIFORM_BYTES, UNIFORM_STEP, uniform53
from qr_sampler.amplification.laws.fair_bits import (
    LAW_ERROR,
    FairBitsLaw,
    law_of_bits,
    law_of_bytes,
)
from qr_sampler.amplification.resolution import Resolution
from qr_sampler.arrays import ByteBlocks, IndexArray
from qr_sampler.errors import ConfigError

__all__ = ["TIE_BYTES", "ExactBitsAmplifier", "ExactSumAmplifier"]

TIE_BYTES: Final = UNIFORM_BYTES
"""Bytes at the end of a block that break ties and decide nothing else."""


class _ExactAmplifier(SignalAmplifier):
    """u = P(S < s) + v P(S = s), the distributional transform of a statistic S.

    s is the statistic of all bytes but the last seven and v = (k + 1/2) / 2**53 comes from those
    seven. S and v being independent, u is uniform for any length of the block, exactly but for the
    2**53 cells of v and an error of the float64 arithmetic below 1e-14: for fair bits the law of s
    has no influence on that of u, only on how strongly a bias of the source moves it.
    (Rueschendorf 2009, On the distributional transform, Sklar's theorem, and the empirical copula
    process, proposition 2.1.)
    """

    name: ClassVar[str]

    def amplify(self, blocks: ByteBlocks, counts: BlockCounts | None = None) -> AmplificationResult:
        """Returns u and the z-score of the deciding bytes.

        Args:
            blocks: Shape ``(B, n)`` with 8 <= n < 2**24, uint8.
            counts: As in the base class.

        Raises:
            ConfigError: When the blocks are shorter.
        """
        self.check_block(blocks.shape[1])
        ties = blocks[:, -TIE_BYTES:]
        law = self._law(blocks.shape[1] - TIE_BYTES)
        value = self._value(counts or BlockCounts(blocks)) - self._value(BlockCounts(ties))
        centre, mass = law.evaluate(value)
        z = (value.astype(np.float64) - law.total / 2.0) / law.deviation
        tie = uniform53(ties)
        return AmplificationResult(
            u=clamp_to_open_interval(centre + (tie - 0.5) * mass),
            statistic=z,
            lattice_step=np.array(UNIFORM_STEP),
        )

    def check_block(self, block_bytes: int) -> None:
        """Refuses blocks without a deciding byte.

        Raises:
            ConfigError: Saying how many bytes there must be.
        """
        if block_bytes <= TIE_BYTES:
            raise ConfigError(
                f"{self.name} keeps {TIE_BYTES} bytes to break ties and needs at least one more "
                f"to decide, but the block has {block_bytes}; use blocks of {TIE_BYTES + 1} bytes "
                "or more"
            )

    def resolution(self, block_bytes: int) -> Resolution:
        """Returns the spacing of float64 numbers and the bound of the rounding error.

        Raises:
            ConfigError: When the block is too short.
        """
        self.check_block(block_bytes)
        return Resolution(lattice_step=UNIFORM_STEP, ks_distance=LAW_ERROR + UNIFORM_STEP)

    @abstractmethod
    def _law(self, count: int) -> FairBitsLaw:
        """Returns the law of the statistic of *count* bytes."""

    @abstractmethod
    def _value(self, counts: BlockCounts) -> IndexArray:
        """Returns the statistic of all that was counted."""


class ExactSumAmplifier(_ExactAmplifier):
    """Maps the sum of a block's bytes to u by the exact law of that sum, without gaps.

    All bytes but the last seven decide; the last seven place u within the step that the sum leaves
    open. u is exactly uniform for uniform bytes, for any block of eight bytes or more. The law is
    that of ideal bytes; a baseline is not used.
    """

    name = "exact_sum"

    def _law(self, count: int) -> FairBitsLaw:
        return law_of_bytes(count)

    def _value(self, counts: BlockCounts) -> IndexArray:
        return counts.sums


class ExactBitsAmplifier(_ExactAmplifier):
    """Maps the number of ones to u by the exact binomial law, without gaps.

    All bytes but the last seven decide; the last seven place u within the step that the count
    leaves open. u is exactly uniform for fair bits, for any block of eight bytes or more, and as
    sensitive to a bias common to all bits as :class:`~qr_sampler.amplification.BitZScoreAmplifier`.
    The law is that of fair bits; a baseline is not used.
    """

    name = "exact_bits"

    def _law(self, count: int) -> FairBitsLaw:
        return law_of_bits(8 * count)

    def _value(self, counts: BlockCounts) -> IndexArray:
        return counts.ones
