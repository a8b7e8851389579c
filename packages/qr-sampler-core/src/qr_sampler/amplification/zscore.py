# SPDX-License-Identifier: Apache-2.0
"""Amplification by the z-score of the byte mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qr_sampler.amplification.base import AmplificationResult, SignalAmplifier
from qr_sampler.amplification.baseline import Baseline, configured_baseline
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.laws.normal import amplify_normal, lattice_gap, z_distance_of_bytes
from qr_sampler.amplification.resolution import Resolution
from qr_sampler.arrays import ByteBlocks
from qr_sampler.settings import BYTE_MEAN, BYTE_STD

if TYPE_CHECKING:
    from qr_sampler.settings import Settings

__all__ = ["ZScoreMeanAmplifier"]


class ZScoreMeanAmplifier(SignalAmplifier):
    """Maps the mean of a block to u = Phi((mean - mu) / SEM) with SEM = sigma / sqrt(n).

    By the central limit theorem u is uniform for unbiased bytes, up to the lattice of byte sums: u
    has a law with 255 n + 1 atoms, whose Kolmogorov distance from uniform is about
    1 / (2 sigma sqrt(2 pi n)), 2.7e-5 at n = 10,240. The standard error uses the number of bytes
    really received. With a baseline, mu and sigma are the device's, and n is multiplied by its
    correlation factor.

    The byte mean weighs the eight bits of a byte by 128, 64 ... 1 and so keeps only
    255**2 / (8 * 21845) = 37 % of the information about a bias common to all bits;
    :class:`~qr_sampler.amplification.bits.BitZScoreAmplifier` keeps all of it.

    Args:
        mean: Expected byte value mu.
        std: Standard deviation sigma of one byte, > 0.
        baseline: Frozen figures of a device, used instead of *mean* and *std*.

    Examples:
        >>> blocks = np.array([[127, 128], [255, 255]], dtype=np.uint8)
        >>> ZScoreMeanAmplifier().amplify(blocks).u.round(4)
        array([0.5   , 0.9927])
    """

    def __init__(
        self, mean: float = BYTE_MEAN, std: float = BYTE_STD, *, baseline: Baseline | None = None
    ) -> None:
        self.mean = mean if baseline is None else baseline.byte_mean
        self.std = std if baseline is None else baseline.byte_std
        self.correlation_factor = 1.0 if baseline is None else baseline.byte_correlation_factor
        self._baseline = baseline
        self._digest = np.array("" if baseline is None else baseline.digest)

    @classmethod
    def from_settings(cls, settings: Settings) -> ZScoreMeanAmplifier:
        """Returns the amplifier with the deployment's baseline, or its population figures.

        Raises:
            ConfigError: When the baseline cannot be used.
        """
        baseline = configured_baseline(settings)
        return cls(settings.population_mean, settings.population_std, baseline=baseline)

    def amplify(self, blocks: ByteBlocks, counts: BlockCounts | None = None) -> AmplificationResult:
        """Returns u and the z-score of every block.

        Args:
            blocks: Shape ``(B, n)`` with 1 <= n < 2**24, uint8. Sums are exact integers.
            counts: As in the base class.
        """
        count = blocks.shape[1]
        sums = (counts or BlockCounts(blocks)).sums
        return amplify_normal(sums, self.mean * count, self._deviation(count), self._digest)

    def resolution(self, block_bytes: int) -> Resolution:
        """Returns the gap between neighbouring sums and the distance caused by it.

        The distance is that of ideal bytes, from their exact law, in proportion to the gap where
        the amplifier assumes another deviation; and the baseline's calibration error.
        """
        step = 1.0 / self._deviation(block_bytes)
        calibration = self._baseline.calibration_error(block_bytes) if self._baseline else 0.0
        widening = step * BYTE_STD * math.sqrt(block_bytes)
        return Resolution(
            lattice_step=lattice_gap(step),
            ks_distance=widening * z_distance_of_bytes(block_bytes) + calibration,
            calibration_error=calibration,
        )

    def without_baseline(self) -> ZScoreMeanAmplifier:
        """Returns the amplifier for ideal bytes, or itself when it has no baseline."""
        return self if self._baseline is None else ZScoreMeanAmplifier()

    def _deviation(self, count: int) -> float:
        """Returns the standard deviation of the sum of *count* bytes."""
        return self.std * math.sqrt(count / self.correlation_factor)
