# SPDX-License-Identifier: Apache-2.0
"""The number of ones and the sum of the bytes of blocks, tested jointly."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import TestResult, normal_interval, normal_p_value

__all__ = ["ONES_SUM_CORRELATION", "BlockBits"]

_WEIGHTS: Final = tuple(2**k for k in range(8))
_ONES_DEVIATION: Final = math.sqrt(8.0 / 4.0)
_SUM_DEVIATION: Final = math.sqrt(sum(weight**2 for weight in _WEIGHTS) / 4.0)

ONES_SUM_CORRELATION: Final = (sum(_WEIGHTS) / 4.0) / (_ONES_DEVIATION * _SUM_DEVIATION)
"""Correlation of the ones and the sum of uniform bytes: 255 / sqrt(8 * 21845) = 0.610.

The byte is the sum of ``2**k b_k``, the count that of ``b_k``, over eight independent bits of
variance 1/4: covariance 255 / 4, variances 8 / 4 and 21845 / 4. Blocks add bytes, which changes no
correlation.
"""


class BlockBits:
    """Ones and byte sums of blocks of any lengths, standardised under the law of uniform bytes.

    The pair ``(z_ones, z_sum)`` is normal with the correlation rho, so ``Q = (z_ones**2 - 2 rho
    z_ones z_sum + z_sum**2) / (1 - rho**2)`` is chi-square with two degrees of freedom (the
    Mahalanobis distance; for example Johnson and Wichern, Applied Multivariate Statistical
    Analysis, result 4.7).
    """

    def __init__(self) -> None:
        self._blocks = 0
        self._bytes = 0
        self._ones = 0
        self._sum = 0
        self._distances = 0.0

    def add(self, block_ones: ArrayLike, block_sums: ArrayLike, block_bytes: ArrayLike) -> None:
        """Adds blocks.

        Args:
            block_ones: Numbers of one bits. Shape ``(B,)``.
            block_sums: Sums of the bytes. Shape ``(B,)``.
            block_bytes: Lengths, shape ``(B,)`` or one for all.

        Raises:
            ConfigError: When counts are impossible for blocks of that length.
        """
        ones, sums = np.asarray(block_ones, np.int64), np.asarray(block_sums, np.int64)
        lengths = np.broadcast_to(np.asarray(block_bytes, np.int64), ones.shape)
        _check(ones, sums, lengths)
        self._blocks += ones.size
        self._bytes += int(lengths.sum())
        self._ones += int(ones.sum())
        self._sum += int(sums.sum())
        self._distances += float(_distances(*_scores(ones, sums, lengths)).sum())

    def ones_test(self) -> TestResult:
        """Returns the z-test of the share of ones among all bits against 1/2."""
        z_ones, _ = self._pooled()
        bits = 8 * self._bytes
        effect = self._ones / bits - 0.5
        return self._normal("ones", z_ones, effect, "share of ones - 1/2", 0.5 / math.sqrt(bits))

    def sum_test(self) -> TestResult:
        """Returns the z-test of the mean of all bytes against 127.5."""
        _, z_sum = self._pooled()
        effect = self._sum / self._bytes - 127.5
        error = _SUM_DEVIATION / math.sqrt(self._bytes)
        return self._normal("byte_mean", z_sum, effect, "mean of the bytes - 127.5", error)

    def joint_test(self) -> TestResult:
        """Returns the two-degree test of ones and sum of all blocks together."""
        z_ones, z_sum = self._pooled()
        distance = float(_distances(np.array(z_ones), np.array(z_sum)))
        return TestResult(
            name="ones_and_sum",
            about="bits",
            statistic=distance,
            p_value=math.exp(-distance / 2.0),
            n=self._blocks,
            effect=z_sum - ONES_SUM_CORRELATION * z_ones,
            effect_name="z of the sum beyond what the ones explain, unscaled",
            notes=(f"Ones and sum correlate by {ONES_SUM_CORRELATION:.3f} in uniform bytes.",),
        )

    def spread_test(self) -> TestResult:
        """Returns the test of how far single blocks stray, which a shift of all may not show.

        The sum of the blocks' Q is chi-square with 2 N degrees of freedom, exactly so for normal
        pairs; blocks of few bytes stray a little less, which makes the test careful.
        """
        self._need_blocks()
        freedom = 2.0 * self._blocks
        upper = float(special.chdtrc(freedom, self._distances))
        lower = float(special.chdtr(freedom, self._distances))
        return TestResult(
            name="ones_and_sum_spread",
            about="bits",
            statistic=self._distances,
            p_value=min(1.0, 2.0 * min(upper, lower)),
            n=self._blocks,
            effect=self._distances / freedom - 1.0,
            effect_name="mean square of the blocks' scores - 1",
        )

    def _normal(self, name: str, z: float, effect: float, what: str, error: float) -> TestResult:
        return TestResult(
            name=name,
            about="bits",
            statistic=z,
            p_value=normal_p_value(z),
            n=self._blocks,
            effect=effect,
            effect_name=what,
            interval=normal_interval(effect, error),
        )

    def _pooled(self) -> tuple[float, float]:
        self._need_blocks()
        totals = (np.array(total) for total in (self._ones, self._sum, self._bytes))
        z_ones, z_sum = _scores(*totals)
        return float(z_ones), float(z_sum)

    def _need_blocks(self) -> None:
        if not self._blocks:
            raise ConfigError("no blocks: ones and sums are known of none of the tokens")


def _scores(
    ones: NDArray[np.int64], sums: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    root = np.sqrt(lengths.astype(np.float64))
    # Differences of integers first: they are exact.
    z_ones = (ones - 4 * lengths) / (_ONES_DEVIATION * root)
    z_sum = (2 * sums - 255 * lengths) / (2.0 * _SUM_DEVIATION * root)
    return z_ones, z_sum


def _distances(z_ones: NDArray[np.float64], z_sum: NDArray[np.float64]) -> NDArray[np.float64]:
    rho = ONES_SUM_CORRELATION
    distances: NDArray[np.float64] = (z_ones**2 - 2.0 * rho * z_ones * z_sum + z_sum**2) / (
        1.0 - rho**2
    )
    return distances


def _check(ones: NDArray[np.int64], sums: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
    if ones.shape != sums.shape or ones.ndim != 1:
        raise ConfigError(
            f"{ones.shape} counts of ones but {sums.shape} sums: give one of each per block"
        )
    wrong = (lengths < 1) | (ones < 0) | (ones > 8 * lengths) | (sums < ones)
    wrong |= sums > 255 * lengths
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ConfigError(
            f"block {at} of {lengths[at]} bytes with {ones[at]} ones and the sum {sums[at]} cannot "
            "exist: look whether the columns belong together"
        )
