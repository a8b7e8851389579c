# SPDX-License-Identifier: Apache-2.0
"""Amplification by the z-score of the byte mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qr_sampler._typing import ByteBlocks, FloatArray
from qr_sampler.amplification.base import (
    AmplificationResult,
    SignalAmplifier,
    clamp_to_open_interval,
)
from qr_sampler.settings import BYTE_MEAN, BYTE_STD

if TYPE_CHECKING:
    from qr_sampler.settings import Settings

__all__ = ["ZScoreMeanAmplifier", "normal_cdf"]


class ZScoreMeanAmplifier(SignalAmplifier):
    """Maps the mean of a block to u = Phi((mean - mu) / SEM) with SEM = sigma / sqrt(n).

    By the central limit theorem u is uniform for unbiased bytes, up to the lattice of byte sums: u
    has a law with 255 n + 1 atoms, whose Kolmogorov distance from uniform is about
    1 / (2 sigma sqrt(2 pi n)), 2.7e-5 at n = 10,240. The standard error uses the number of bytes
    really received.

    Args:
        mean: Expected byte value mu.
        std: Standard deviation sigma of one byte, > 0.

    Examples:
        >>> blocks = np.array([[127, 128], [255, 255]], dtype=np.uint8)
        >>> ZScoreMeanAmplifier().amplify(blocks).u.round(4)
        array([0.5   , 0.9927])
    """

    def __init__(self, mean: float = BYTE_MEAN, std: float = BYTE_STD) -> None:
        self.mean = mean
        self.std = std

    @classmethod
    def from_settings(cls, settings: Settings) -> ZScoreMeanAmplifier:
        """Returns the amplifier with the deployment's population mean and deviation."""
        return cls(settings.population_mean, settings.population_std)

    def amplify(self, blocks: ByteBlocks) -> AmplificationResult:
        """Returns u and the z-score of every block.

        Args:
            blocks: Shape ``(B, n)`` with 1 <= n < 2**24, uint8. Sums are exact integers.
        """
        count = blocks.shape[1]
        sums = blocks.sum(axis=1, dtype=np.uint32).astype(np.float64)
        z = (sums - self.mean * count) / (self.std * math.sqrt(count))
        return AmplificationResult(u=clamp_to_open_interval(normal_cdf(z)), statistic=z)


def normal_cdf(z: FloatArray) -> FloatArray:
    """Returns the standard normal distribution function, accurate in the lower tail.

    ``erfc(-z / sqrt(2)) / 2`` keeps its relative accuracy where ``(1 + erf) / 2`` cancels
    (Abramowitz and Stegun, 7.1.2 and 26.2.29).
    """
    return np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in z], dtype=np.float64)
