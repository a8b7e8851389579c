# SPDX-License-Identifier: Apache-2.0
"""Amplification by the z-score of the number of one bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qr_sampler.amplification.base import AmplificationResult, SignalAmplifier
from qr_sampler.amplification.baseline import Baseline, configured_baseline
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.laws.normal import amplify_normal, lattice_gap, z_distance_of_bits
from qr_sampler.amplification.resolution import Resolution
from qr_sampler.arrays import ByteBlocks

if TYPE_CHECKING:
    from qr_sampler.settings import Settings

__all__ = ["BitZScoreAmplifier"]


class BitZScoreAmplifier(SignalAmplifier):
    """Maps the number of ones among the 8 n bits of a block to u = Phi(z).

    For fair bits z = (ones - 4 n) / sqrt(2 n), the z-score of a binomial law. A bias of e per bit
    (p = 1/2 + e) moves z by 2 e sqrt(8 n), 1.64 times as far as it moves the z-score of the byte
    mean: the popcount weighs all bits alike and so keeps all of the information about a common
    bias, the byte mean 37 % of it.

    The price is a coarse lattice: u has only 8 n + 1 values, of which neighbours near the median
    are 1 / sqrt(4 pi n) apart, 2.8e-3 at n = 10,240.
    :class:`~qr_sampler.amplification.exact.ExactBitsAmplifier` has no such gaps.

    With a baseline the expected fraction of ones is the device's and the number of bits is
    multiplied by its correlation factor. ``population_mean`` and ``population_std`` describe bytes
    and are not used.

    Args:
        baseline: Frozen figures of a device, used instead of those of fair bits.

    Examples:
        >>> blocks = np.array([[0b00001111, 0b01010101], [0b11111111, 0b11111111]], dtype=np.uint8)
        >>> BitZScoreAmplifier().amplify(blocks).statistic
        array([0., 4.])
    """

    def __init__(self, *, baseline: Baseline | None = None) -> None:
        self.ones_fraction = 0.5 if baseline is None else baseline.ones_fraction
        self.correlation_factor = 1.0 if baseline is None else baseline.bit_correlation_factor
        self._baseline = baseline
        self._digest = np.array("" if baseline is None else baseline.digest)

    @classmethod
    def from_settings(cls, settings: Settings) -> BitZScoreAmplifier:
        """Returns the amplifier with the deployment's baseline, if it has one.

        Raises:
            ConfigError: When the baseline cannot be used.
        """
        return cls(baseline=configured_baseline(settings))

    def amplify(self, blocks: ByteBlocks, counts: BlockCounts | None = None) -> AmplificationResult:
        """Returns u and the z-score of every block.

        Args:
            blocks: Shape ``(B, n)`` with 1 <= n < 2**24, uint8. Counts are exact integers.
            counts: As in the base class.
        """
        bits = 8 * blocks.shape[1]
        ones = (counts or BlockCounts(blocks)).ones
        mean, deviation = self.ones_fraction * bits, self._deviation(bits)
        return amplify_normal(ones, mean, deviation, self._digest)

    def resolution(self, block_bytes: int) -> Resolution:
        """Returns the gap between neighbouring counts and the distance caused by it.

        The distance is that of fair bits, from their exact law, in proportion to the gap where a
        baseline has another deviation; and the baseline's calibration error.
        """
        bits = 8 * block_bytes
        step = 1.0 / self._deviation(bits)
        calibration = self._baseline.calibration_error(block_bytes) if self._baseline else 0.0
        widening = step * math.sqrt(bits / 4.0)
        return Resolution(
            lattice_step=lattice_gap(step),
            ks_distance=widening * z_distance_of_bits(bits) + calibration,
            calibration_error=calibration,
        )

    def without_baseline(self) -> BitZScoreAmplifier:
        """Returns the amplifier for fair bits, or itself when it has no baseline."""
        return self if self._baseline is None else BitZScoreAmplifier()

    def _deviation(self, bits: int) -> float:
        """Returns the standard deviation of the number of ones among *bits* bits."""
        fraction = self.ones_fraction
        return math.sqrt(bits * fraction * (1.0 - fraction) / self.correlation_factor)
