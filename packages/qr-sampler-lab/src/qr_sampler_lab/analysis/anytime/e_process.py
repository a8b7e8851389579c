# SPDX-License-Identifier: Apache-2.0
"""The Gaussian-mixture e-process: a bet on a shift of z whose gain is the evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import Alternative, checked_alternative, checked_numbers

__all__ = ["EProcess", "EProcessResult", "log_e_values"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EProcessResult:
    """Where an e-process stands."""

    n: int
    """Number of scores so far."""
    score_sum: float
    """Their sum S_n."""
    log_e: float
    """Natural logarithm of the e-value now."""
    log_e_max: float
    """Largest logarithm so far, 0 before the first score."""
    n_at_max: int
    """After how many scores it was reached."""
    crossed_at: int | None
    """After how many scores the e-value first reached 1 / alpha; ``None`` if it never did."""
    alpha: float
    """Bound of the probability of ever crossing under the null hypothesis."""
    tau: float
    """Standard deviation of the shifts that the process bets on."""
    alternative: Alternative
    """The side that counts."""

    @property
    def p_value(self) -> float:
        """Anytime-valid p-value: the reciprocal of the largest e-value, at most 1."""
        return min(1.0, math.exp(-self.log_e_max))


class EProcess:
    """E-process of standard scores that bets on shifts from the normal law N(0, tau**2).

    With S_n the sum of n scores::

        E_n = (1 + n tau**2)**(-1/2) exp(tau**2 S_n**2 / (2 (1 + n tau**2)))

    (Robbins, Statistical methods related to the law of the iterated logarithm, 1970; it is also the
    Bayes factor of that prior.) One-sided, the prior is half-normal and E_n has the further factor
    ``2 Phi(+-tau S_n / sqrt(1 + n tau**2))`` (Howard et al., Time-uniform, nonparametric,
    nonasymptotic confidence sequences, 2021).

    Under the null hypothesis E_n is a martingale of mean 1, so the probability that it *ever*
    reaches 1 / alpha is at most alpha (Ville's inequality), however often one looks. It suffices
    that the scores are sub-Gaussian with variance 1, which the z-scores of fair bits and of uniform
    bytes are at any block length: each bit is (Hoeffding's lemma), and so are their sums.

    Scores that refer to a measured baseline share its error and violate the hypothesis; use
    :class:`~qr_sampler_lab.analysis.anytime.PairedStreams` for them.

    Args:
        tau: Standard deviation of the shifts, in standard deviations of one score, > 0. Fixed
            before the data are seen.
        alpha: Bound of the probability of a false alarm, between 0 and 1.
        alternative: The side that counts.

    Raises:
        ConfigError: When a parameter is out of range.

    Examples:
        >>> process = EProcess(tau=0.1)
        >>> process.add([1.0, 2.0]).round(4).tolist()
        [-0.0, 0.0342]
        >>> round(process.result().log_e, 4)
        0.0342
    """

    def __init__(
        self, *, tau: float, alpha: float = 0.05, alternative: Alternative = "two-sided"
    ) -> None:
        if not tau > 0.0 or not math.isfinite(tau):
            raise ConfigError(f"tau={tau}: shifts need a positive scale, for example 0.1")
        if not 0.0 < alpha < 1.0:
            raise ConfigError(f"alpha={alpha}: use a probability between 0 and 1")
        self.tau, self.alpha = tau, alpha
        self.alternative = checked_alternative(alternative)
        self._n, self._sum = 0, 0.0
        self._log_e = self._log_e_max = 0.0
        self._n_at_max = 0
        self._crossed_at: int | None = None

    def add(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Adds scores in order of time and returns log E after each of them.

        Args:
            scores: Shape ``(B,)``, mean 0 and variance 1 under the null hypothesis.

        Raises:
            ConfigError: When a score is not finite.
        """
        numbers = checked_numbers(scores, name="scores")
        n = self._n + np.arange(1, numbers.size + 1)
        sums = self._sum + np.cumsum(numbers)
        log_e = log_e_values(n, sums, tau=self.tau, alternative=self.alternative)
        if numbers.size:
            self._remember(n, sums, log_e)
        return log_e

    def result(self) -> EProcessResult:
        """Returns where the process stands."""
        return EProcessResult(
            n=self._n,
            score_sum=self._sum,
            log_e=self._log_e,
            log_e_max=self._log_e_max,
            n_at_max=self._n_at_max,
            crossed_at=self._crossed_at,
            alpha=self.alpha,
            tau=self.tau,
            alternative=self.alternative,
        )

    def _remember(
        self, n: NDArray[np.int64], sums: NDArray[np.float64], log_e: NDArray[np.float64]
    ) -> None:
        top = int(np.argmax(log_e))
        if log_e[top] > self._log_e_max:
            self._log_e_max, self._n_at_max = float(log_e[top]), int(n[top])
        over = log_e >= -math.log(self.alpha)
        if self._crossed_at is None and over.any():
            self._crossed_at = int(n[np.argmax(over)])
        self._n, self._sum, self._log_e = int(n[-1]), float(sums[-1]), float(log_e[-1])


def log_e_values(
    n: ArrayLike, score_sums: ArrayLike, *, tau: float, alternative: Alternative = "two-sided"
) -> NDArray[np.float64]:
    """Returns log E_n for sums of scores, see :class:`EProcess`.

    Args:
        n: Numbers of scores, >= 0.
        score_sums: Their sums, of the same shape or one that broadcasts.
        tau: Standard deviation of the shifts.
        alternative: The side that counts.
    """
    spread = 1.0 + np.asarray(n, dtype=np.float64) * tau**2
    sums = np.asarray(score_sums, dtype=np.float64)
    log_e: NDArray[np.float64] = tau**2 * sums**2 / (2.0 * spread) - 0.5 * np.log(spread)
    if checked_alternative(alternative) == "two-sided":
        return log_e
    towards = sums if alternative == "greater" else -sums
    one_sided: NDArray[np.float64] = (
        log_e + math.log(2.0) + special.log_ndtr(tau * towards / np.sqrt(spread))
    )
    return one_sided
