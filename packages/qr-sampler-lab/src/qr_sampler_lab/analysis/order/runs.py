# SPDX-License-Identifier: Apache-2.0
"""How often the numbers change from one side of their median to the other."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import TestResult, checked_numbers, normal_p_value

__all__ = ["Runs", "runs_probabilities"]

_EXACT: Final = 500
"""Up to so many numbers the law of the runs is summed exactly."""


class Runs:
    """The runs test of Wald and Wolfowitz about a fixed median.

    (On a test whether two samples are from the same population, 1940.)
    Given how many numbers lie above and below, all orders are equally likely, whatever the share:
    a shifted mean is no finding here, stickiness and alternation are. Numbers equal to the median
    are left out. Exact up to 500 numbers, then normal.

    Args:
        median: 1/2 for u, 0 for a z-score.
    """

    def __init__(self, median: float = 0.5) -> None:
        self.median = median
        self._above = 0
        self._below = 0
        self._runs = 0
        self._last: bool | None = None

    def add(self, values: ArrayLike) -> None:
        """Adds a chunk in order of time. Shape ``(B,)``.

        Raises:
            ConfigError: When a number is not finite.
        """
        numbers = checked_numbers(values)
        above = numbers[numbers != self.median] > self.median
        if not above.size:
            return
        changes = int(np.count_nonzero(above[1:] != above[:-1]))
        self._runs += changes + (self._last is None or self._last != bool(above[0]))
        self._last = bool(above[-1])
        hits = int(np.count_nonzero(above))
        self._above += hits
        self._below += above.size - hits

    def result(self, *, about: str = "u") -> TestResult:
        """Returns the test, two-sided.

        Raises:
            ConfigError: When all numbers lie on one side.
        """
        above, below = self._above, self._below
        if not above or not below:
            raise ConfigError(
                f"{above} numbers above the median and {below} below: runs need both sides"
            )
        n = above + below
        mean = 2.0 * above * below / n + 1.0
        variance = (mean - 1.0) * (mean - 2.0) / (n - 1)
        z = (self._runs - mean) / math.sqrt(variance) if variance > 0.0 else 0.0
        return TestResult(
            name="runs",
            about=about,
            statistic=z,
            p_value=self._exact_p_value() if n <= _EXACT else normal_p_value(z),
            n=n,
            effect=self._runs / mean - 1.0,
            effect_name="runs / expected runs - 1",
            notes=(f"{self._runs:,} runs.",),
        )

    def _exact_p_value(self) -> float:
        law = runs_probabilities(self._above, self._below)
        tails = law[: self._runs + 1].sum(), law[self._runs :].sum()
        return min(1.0, 2.0 * float(min(tails)))


def runs_probabilities(above: int, below: int) -> NDArray[np.float64]:
    """Returns the probability of r runs, for r from 0 on.

    Of 2 k runs there are ``2 C(a - 1, k - 1) C(b - 1, k - 1)`` orders, of 2 k + 1 runs
    ``C(a - 1, k) C(b - 1, k - 1) + C(a - 1, k - 1) C(b - 1, k)``, of ``C(a + b, a)`` in all (Wald
    and Wolfowitz 1940).

    Args:
        above: Number a of numbers above the median, >= 1.
        below: Number b of those below, >= 1.

    Examples:
        >>> runs_probabilities(1, 1).tolist()
        [0.0, 0.0, 1.0]
    """
    most = 2 * min(above, below) + (above != below)
    k = np.arange(0, most // 2 + 2)
    with np.errstate(divide="ignore"):
        a, b = _log_choose(above - 1, k), _log_choose(below - 1, k)
    law = np.full(most + 1, -math.inf)
    r = np.arange(2, most + 1)
    even, odd = r[r % 2 == 0] // 2, r[r % 2 == 1] // 2
    law[2 * even] = math.log(2.0) + a[even - 1] + b[even - 1]
    law[2 * odd + 1] = np.logaddexp(a[odd] + b[odd - 1], a[odd - 1] + b[odd])
    probabilities: NDArray[np.float64] = np.exp(law - float(_log_choose(above + below, above)))
    return probabilities


def _log_choose(n: int, k: ArrayLike) -> NDArray[np.float64]:
    chosen = np.asarray(k, dtype=np.float64)
    inside = np.minimum(chosen, n)
    value = (
        special.gammaln(n + 1.0) - special.gammaln(inside + 1.0) - special.gammaln(n - inside + 1.0)
    )
    logarithm: NDArray[np.float64] = np.where(chosen > n, -math.inf, value)
    return logarithm
