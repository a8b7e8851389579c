# SPDX-License-Identifier: Apache-2.0
"""Count, mean and variance of numbers that come in chunks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from qr_sampler_lab.analysis.results import checked_numbers

__all__ = ["Moments"]


class Moments:
    """Count, mean and sum of squared deviations of all that was added.

    Chunks are combined by the pairwise update of Chan, Golub and LeVeque (Updating formulae and a
    pairwise algorithm for computing sample variances, 1979), which loses no digits to the size of
    the mean. Of equal numbers the mean is that number and the variance 0, exactly.

    Examples:
        >>> moments = Moments()
        >>> moments.add([1.0, 2.0])
        >>> moments.add([6.0])
        >>> moments.n, moments.mean, moments.variance
        (3, 3.0, 7.0)
    """

    __slots__ = ("_high", "_low", "mean", "n", "squares")

    def __init__(self) -> None:
        self.n = 0
        self.mean = 0.0
        self.squares = 0.0
        """Sum of squared deviations from the mean."""
        self._low, self._high = math.inf, -math.inf

    def add(self, values: ArrayLike) -> None:
        """Adds a chunk. Shape ``(B,)``; an empty one changes nothing.

        Raises:
            ConfigError: When a number is not finite.
        """
        numbers = checked_numbers(values)
        if numbers.size:
            mean = float(numbers.mean())
            deviations = numbers - mean
            squares = float(np.dot(deviations, deviations))
            low, high = float(numbers.min()), float(numbers.max())
            self._combine(numbers.size, mean, squares, low, high)

    def merge(self, other: Moments) -> None:
        """Adds all that *other* has seen."""
        if other.n:
            self._combine(other.n, other.mean, other.squares, other._low, other._high)

    @property
    def variance(self) -> float:
        """Unbiased variance; NaN for fewer than two numbers."""
        return self.squares / (self.n - 1) if self.n > 1 else math.nan

    @property
    def deviation(self) -> float:
        """Square root of :attr:`variance`."""
        return math.sqrt(self.variance)

    def _combine(self, n: int, mean: float, squares: float, low: float, high: float) -> None:
        total = self.n + n
        distance = mean - self.mean
        self.squares += squares + distance**2 * self.n * n / total
        self.mean += distance * n / total
        self.n = total
        self._low, self._high = min(self._low, low), max(self._high, high)
        if self._low == self._high:
            # Rounded sums of equal numbers differ, and a difference of two of them would be huge
            # beside their variances.
            self.mean, self.squares = self._low, 0.0
