# SPDX-License-Identifier: Apache-2.0
"""The cumulative sum of deviations from the mean, a Brownian bridge if the mean stays."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.location import Moments
from qr_sampler_lab.analysis.order.hull import UpperHull
from qr_sampler_lab.analysis.results import TestResult, checked_numbers

__all__ = ["Cusum"]

_DISCRETE: Final = 0.5825971579390107
"""-zeta(1/2) / sqrt(2 pi): by so many deviations of a step the maximum of a walk falls short of
that of the path that it samples."""


class Cusum:
    """The CUSUM test for a mean that changes or drifts, whatever its level is.

    ``max_k |S_k - (k / n) S_n| / (s sqrt(n))`` with the sum S_k of the first k numbers and their
    sample deviation s. For independent numbers the path tends to a Brownian bridge, whose largest
    absolute value has Kolmogorov's law (Ploberger and Kraemer, The CUSUM test with OLS residuals,
    1992). A path of n steps misses the extremes between its steps, 0.5826 deviations of a step on
    average: that much is added (Siegmund, Corrected diffusion approximations, 1979; Broadie,
    Glasserman and Kou, A continuity correction for discrete barrier options, 1997).

    Memory: the convex hull of the path, exact whatever the chunks are.
    """

    def __init__(self) -> None:
        self._moments = Moments()
        self._reference: float | None = None
        self._sum = 0.0
        self._upper, self._lower = UpperHull(), UpperHull()

    def add(self, values: ArrayLike) -> None:
        """Adds a chunk in order of time. Shape ``(B,)``.

        Raises:
            ConfigError: When a number is not finite.
        """
        numbers = checked_numbers(values)
        if not numbers.size:
            return
        # Sums of deviations from some number near the mean keep their digits.
        if self._reference is None:
            self._reference = float(numbers.mean())
        k = np.arange(self._moments.n + 1, self._moments.n + numbers.size + 1, dtype=np.float64)
        path = self._sum + np.cumsum(numbers - self._reference)
        self._upper.add(k, path)
        self._lower.add(k, -path)
        self._sum = float(path[-1])
        self._moments.add(numbers)

    def result(self, *, about: str = "u") -> TestResult:
        """Returns the test.

        Raises:
            ConfigError: When there are fewer than ten numbers, or they do not vary.
        """
        n, deviation = self._moments.n, self._moments.deviation
        if n < 10 or deviation == 0.0:
            raise ConfigError(f"{n} numbers: a drift shows in at least ten that vary")
        slope = self._sum / n
        (up, up_at), (down, down_at) = self._upper.highest(slope), self._lower.highest(-slope)
        largest, at = (up, up_at) if up >= down else (-down, down_at)
        scaled = max(0.0, abs(largest)) / (deviation * math.sqrt(n))
        return TestResult(
            name="cusum",
            about=about,
            statistic=scaled,
            p_value=float(special.kolmogorov(scaled + _DISCRETE / math.sqrt(n))),
            n=n,
            effect=largest / n,
            effect_name="largest excursion of the sum / n",
            notes=(f"Farthest from its line after {int(at):,} tokens.",),
        )
