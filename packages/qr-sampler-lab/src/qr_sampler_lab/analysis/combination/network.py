# SPDX-License-Identifier: Apache-2.0
"""Do several sources deviate together? The Global Consciousness Project's standard analysis."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import TestResult, normal_p_value

__all__ = ["NetworkVariance"]


class NetworkVariance:
    """The sum of squared Stouffer scores of several sources over time, and its covariance part.

    With z_ti the score of source i at time t, of N_t sources that have one: ``Z_t = sum_i z_ti /
    sqrt(N_t)``, and ``sum_t Z_t**2`` is chi-square with T degrees of freedom for standard normal
    scores (Bancel and Nelson, The GCP event experiment: design, analytical methods, results, 2008).
    A single noisy source raises it, too; the mean product of pairs is moved only by sources that go
    together, but it scatters more widely beside a source that is biased or noisy: standardise the
    scores of each by their own mean and deviation if that is not what is asked.
    """

    def __init__(self) -> None:
        self._times = 0
        self._netvar = 0.0
        self._products = 0.0
        self._pairs = 0.0

    def add(self, scores: ArrayLike) -> None:
        """Adds times.

        Args:
            scores: Shape ``(T, N)``, NaN where a source has no score at that time.

        Raises:
            ConfigError: When it is no table, or a score is infinite.
        """
        table = np.asarray(scores, dtype=np.float64)
        if table.ndim != 2 or np.isinf(table).any():
            raise ConfigError(
                f"scores of the shape {table.shape}: give finite numbers in one row per time and "
                "one column per source, NaN where there is none"
            )
        present = ~np.isnan(table)
        count = present.sum(axis=1)
        table, present, count = table[count > 0], present[count > 0], count[count > 0]
        squared_sums = np.nansum(table, axis=1) ** 2
        squares = np.nansum(table**2, axis=1)
        self._times += count.size
        self._netvar += float((squared_sums / count).sum())
        self._products += float((squared_sums - squares).sum()) / 2.0
        self._pairs += float((count * (count - 1)).sum()) / 2.0

    def netvar_test(self) -> TestResult:
        """Returns the chi-square test of the network variance; large values count.

        Raises:
            ConfigError: When there are no scores.
        """
        if not self._times:
            raise ConfigError("no scores: give at least one time with one source")
        return TestResult(
            name="network_variance",
            about="sources",
            statistic=self._netvar,
            p_value=float(special.chdtrc(self._times, self._netvar)),
            n=self._times,
            effect=self._netvar / self._times - 1.0,
            effect_name="mean squared Stouffer score - 1",
            alternative="greater",
            notes=(f"{self._times:,} times.",),
        )

    def pairs_test(self) -> TestResult:
        """Returns the z-test of the mean product of pairs; positive values count.

        Products of two independent standard scores have mean 0 and variance 1 and are uncorrelated;
        their mean is normal for many times.

        Raises:
            ConfigError: When no time has two sources.
        """
        if not self._pairs:
            raise ConfigError("no time with two sources: pairs need two")
        z = self._products / math.sqrt(self._pairs)
        return TestResult(
            name="pair_products",
            about="sources",
            statistic=z,
            p_value=normal_p_value(z, "greater"),
            n=int(self._pairs),
            effect=self._products / self._pairs,
            effect_name="mean product of the scores of two sources",
            alternative="greater",
            notes=(f"{int(self._pairs):,} pairs at {self._times:,} times.",),
        )
