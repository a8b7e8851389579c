# SPDX-License-Identifier: Apache-2.0
"""Amplification by the rank of a block among the blocks of a frozen calibration sample."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from qr_sampler.amplification.base import AmplificationResult, SignalAmplifier
from qr_sampler.amplification.baseline import Baseline, configured_baseline
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.resolution import Resolution
from qr_sampler.amplification.zscore import ZScoreMeanAmplifier
from qr_sampler.arrays import ByteBlocks, FloatArray, IndexArray
from qr_sampler.errors import ConfigError

if TYPE_CHECKING:
    from qr_sampler.settings import Settings

__all__ = ["ECDFAmplifier"]

# Mean of the Kolmogorov law, sqrt(pi / 2) * log(2): the expected distance of an empirical
# distribution function from its law, times sqrt(N).
_KOLMOGOROV_MEAN: Final = math.sqrt(math.pi / 2.0) * math.log(2.0)


class ECDFAmplifier(SignalAmplifier):
    """Maps the sum of a block to its place among the N block sums of a baseline.

    u = (less + equal / 2 + 1/2) / (N + 1), where *less* and *equal* count the calibration sums
    below and at the block's. A further block of the same device falls into each of the N + 1 gaps
    between N distinct sums with probability 1 / (N + 1), and u is the midpoint of its gap; ties
    take the mid-rank. So u stays inside (0, 1) with no excess at either end, whatever the law of
    the device. Serial correlation needs no correction: the calibration sums have it too.

    Args:
        baseline: A baseline with block sums.

    Raises:
        ConfigError: When the baseline has no block sums.
    """

    def __init__(self, baseline: Baseline) -> None:
        if not baseline.block_sums:
            raise ConfigError(
                f"the baseline of {baseline.source!r} has no block sums; measure one that has them"
            )
        self._baseline = baseline
        self._sums = np.array(baseline.block_sums, dtype=np.intp)
        self._digest = np.array(baseline.digest)
        self._step = _widest_gap(self._sums)

    @classmethod
    def from_settings(cls, settings: Settings) -> ECDFAmplifier:
        """Returns the amplifier with the deployment's baseline.

        Raises:
            ConfigError: When there is none, or it has no block sums.
        """
        baseline = configured_baseline(settings)
        if baseline is None:
            raise ConfigError(
                "ecdf ranks a block among the blocks of a baseline and none is configured; "
                "set QR_BASELINE_FILE to a baseline of this source, or use another amplifier"
            )
        return cls(baseline)

    def amplify(self, blocks: ByteBlocks, counts: BlockCounts | None = None) -> AmplificationResult:
        """Returns u and the byte sum of every block.

        Args:
            blocks: Shape ``(B, n)`` with the baseline's n, uint8.
            counts: As in the base class.

        Raises:
            ConfigError: When the baseline is of blocks of another length.
        """
        self.check_block(blocks.shape[1])
        sums = (counts or BlockCounts(blocks)).sums
        return AmplificationResult(
            u=_mid_ranks(self._sums, sums),
            statistic=sums.astype(np.float64),
            lattice_step=np.array(self._step),
            baseline=self._digest,
        )

    def check_block(self, block_bytes: int) -> None:
        """Refuses blocks of another length than the baseline's.

        Raises:
            ConfigError: Naming both lengths.
        """
        expected = self._baseline.block_bytes
        if block_bytes != expected:
            raise ConfigError(
                f"ecdf compares blocks of equal length: the baseline has {expected} bytes per "
                f"block and this one {block_bytes}; use {expected}, or measure another baseline"
            )

    def resolution(self, block_bytes: int) -> Resolution:
        """Returns the widest gap in the middle half of the calibration sums, and the distance.

        Over all calibrations the distance is half a gap; given one, frozen, it is 0.87 / sqrt(N) on
        average, the distance of any empirical distribution function from its law.

        Raises:
            ConfigError: When the baseline is of blocks of another length.
        """
        self.check_block(block_bytes)
        calibration = _KOLMOGOROV_MEAN / math.sqrt(self._sums.size)
        return Resolution(
            lattice_step=self._step,
            ks_distance=self._step / 2.0 + calibration,
            calibration_error=calibration,
        )

    def without_baseline(self) -> ZScoreMeanAmplifier:
        """Returns ``zscore_mean``, which judges the same byte sums by the law of ideal bytes."""
        return ZScoreMeanAmplifier()


def _mid_ranks(calibration: IndexArray, sums: IndexArray) -> FloatArray:
    """Returns (less + equal / 2 + 1/2) / (N + 1) for every sum."""
    less = np.searchsorted(calibration, sums, side="left")
    at_most = np.searchsorted(calibration, sums, side="right")
    return (less + at_most + 1) / (2.0 * (calibration.size + 1))


def _widest_gap(calibration: IndexArray) -> float:
    """Returns the widest gap between the u of neighbouring sums in the middle half."""
    low, high = calibration[[calibration.size // 4, 3 * calibration.size // 4]]
    distinct = np.unique(calibration[(calibration >= low) & (calibration <= high)])
    nearby = np.unique(np.concatenate([distinct - 1, distinct, distinct + 1]))
    return float(np.diff(_mid_ranks(calibration, nearby)).max())
