# SPDX-License-Identifier: Apache-2.0
"""How far a sum of scores may stray, at one look fixed before and at any number of looks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from qr_sampler_lab.analysis.anytime.e_process import log_e_values
from qr_sampler_lab.analysis.results import Alternative, checked_alternative

__all__ = ["fixed_boundary", "smallest_tau_width", "ville_boundary"]

_STEPS = 80
"""Bisections of the one-sided boundary; each halves the error."""


def fixed_boundary(
    n: ArrayLike, *, alpha: float = 0.05, alternative: Alternative = "two-sided"
) -> NDArray[np.float64]:
    """Returns what the sum of n scores exceeds with probability *alpha* at one n fixed before.

    The pointwise envelope, ``1.96 sqrt(n)`` for 5 % on two sides. A path is outside of it somewhere
    far more often than that.

    Args:
        n: Numbers of scores.
        alpha: Probability of being outside, at one n.
        alternative: ``"two-sided"``: compare absolute sums; otherwise sums towards that side.
    """
    tail = alpha / 2.0 if checked_alternative(alternative) == "two-sided" else alpha
    boundary: NDArray[np.float64] = -special.ndtri(tail) * np.sqrt(np.asarray(n, np.float64))
    return boundary


def ville_boundary(
    n: ArrayLike, *, tau: float, alpha: float = 0.05, alternative: Alternative = "two-sided"
) -> NDArray[np.float64]:
    """Returns what the sum of n scores *ever* exceeds with a probability of at most *alpha*.

    Where the e-process of :class:`~qr_sampler_lab.analysis.anytime.EProcess` equals 1 / alpha:
    ``sqrt((1 + n tau**2) log((1 + n tau**2) / alpha**2)) / tau`` on two sides (Robbins' normal
    mixture boundary), the root of the half-normal mixture on one.

    Args:
        n: Numbers of scores.
        tau: Standard deviation of the shifts.
        alpha: Probability of ever being outside.
        alternative: As in :func:`fixed_boundary`.
    """
    spread = 1.0 + np.asarray(n, np.float64) * tau**2
    two_sided: NDArray[np.float64] = np.sqrt(spread * np.log(spread / alpha**2)) / tau
    if checked_alternative(alternative) == "two-sided":
        return two_sided
    low, high = np.zeros_like(two_sided), two_sided
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        over = log_e_values(n, middle, tau=tau, alternative="greater") > -math.log(alpha)
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    return high


def smallest_tau_width(n: int, *, alpha: float = 0.05) -> float:
    """Returns the tau whose two-sided boundary is narrowest at *n* scores.

    To be chosen, and sealed, before the experiment: with x = n tau**2 the boundary's square is
    proportional to ``(1 + x) log((1 + x) / alpha**2) / x``.

    Examples:
        >>> round(smallest_tau_width(2_000), 4)
        0.0641
    """

    def width(log_x: float) -> float:
        x = math.exp(log_x)
        return (1.0 + x) * math.log((1.0 + x) / alpha**2) / x

    found = optimize.minimize_scalar(width, bounds=(-10.0, 15.0), method="bounded")
    return math.sqrt(math.exp(float(found.x)) / n)
