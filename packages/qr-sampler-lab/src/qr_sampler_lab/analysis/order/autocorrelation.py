# SPDX-License-Identifier: Apache-2.0
"""Autocorrelations of the first lags, taken together."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import TestResult, checked_numbers

__all__ = ["LjungBox"]


class LjungBox:
    """The test of Ljung and Box (On a measure of lack of fit in time series models, 1978).

    ``Q = n (n + 2) sum_k r_k**2 / (n - k)`` over the first lags k, chi-square with as many degrees
    of freedom, for independent numbers. r_k is the autocorrelation about the sample mean.

    Memory: as many numbers as there are lags, at either end.

    Args:
        lags: Number of lags, >= 1.
    """

    def __init__(self, lags: int = 10) -> None:
        if lags < 1:
            raise ConfigError(f"lags={lags}: use at least one")
        self.lags = lags
        self._n = 0
        self._reference = 0.0
        self._sum = 0.0
        # Lag 0 first: the squares.
        self._products = np.zeros(lags + 1)
        self._first = np.empty(0)
        self._last = np.empty(0)

    def add(self, values: ArrayLike) -> None:
        """Adds a chunk in order of time. Shape ``(B,)``.

        Raises:
            ConfigError: When a number is not finite.
        """
        numbers = checked_numbers(values)
        if not numbers.size:
            return
        # Products of deviations from some number near the mean keep their digits.
        if not self._n:
            self._reference = float(numbers.mean())
        numbers = numbers - self._reference
        joined = np.append(self._last, numbers)
        known = self._last.size
        for lag in range(self.lags + 1):
            later = joined[max(known, lag) :]
            self._products[lag] += np.dot(later, joined[max(known - lag, 0) :][: later.size])
        if self._first.size < self.lags:
            self._first = np.append(self._first, numbers)[: self.lags]
        self._last = joined[-self.lags :]
        self._sum += float(numbers.sum())
        self._n += numbers.size

    def autocorrelations(self) -> NDArray[np.float64]:
        """Returns the autocorrelations at lags 1, 2 ... Shape ``(lags,)``.

        Raises:
            ConfigError: When there are no more numbers than lags, or they do not vary.
        """
        if self._n <= self.lags:
            raise ConfigError(f"{self._n} numbers: {self.lags} lags need more than that")
        mean, k = self._sum / self._n, np.arange(self.lags + 1)
        # sum (x_t - m)(x_(t-k) - m) from sums of products: either factor lacks k numbers.
        early = np.append(0.0, np.cumsum(self._first[: self.lags]))
        late = np.append(0.0, np.cumsum(self._last[::-1]))
        centred = self._products - mean * (2.0 * self._sum - early - late)
        centred += (self._n - k) * mean**2
        if not centred[0] > 0.0:
            raise ConfigError("all numbers are equal: they have no autocorrelations")
        correlations: NDArray[np.float64] = centred[1:] / centred[0]
        return correlations

    def result(self, *, about: str = "u") -> TestResult:
        """Returns the test; its effect is the autocorrelation at lag 1.

        Raises:
            ConfigError: As :meth:`autocorrelations`.
        """
        correlations = self.autocorrelations()
        room = self._n - np.arange(1, self.lags + 1)
        q = float(self._n * (self._n + 2.0) * (correlations**2 / room).sum())
        return TestResult(
            name="ljung_box",
            about=about,
            statistic=q,
            p_value=float(special.chdtrc(self.lags, q)),
            n=self._n,
            effect=float(correlations[0]),
            effect_name="autocorrelation at lag 1",
        )
