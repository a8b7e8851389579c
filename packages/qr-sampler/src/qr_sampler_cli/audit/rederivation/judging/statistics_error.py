# SPDX-License-Identifier: Apache-2.0
"""What error of the logits explains a difference of entropies or of probabilities."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from qr_sampler.arrays import FloatArray
from qr_sampler.selection.masses import EXPONENT_FLOOR

__all__ = ["RECORD_ERROR", "RowStatistics", "needed_for_probability", "spread_of_probability"]

RECORD_ERROR: Final = 2.0**-15
"""Relative error of recorded statistics: engines add up in float32, and a selector may round the
total that a probability refers to by 1e-5 of it."""

_SECOND_ORDER: Final = 2.0


class RowStatistics(NamedTuple):
    """How entropy H and varentropy V of a row at temperature 1 depend on its logits.

    With s = -ln p, dH = sum p (s - H) e and dV = -sum p ((s - H)**2 - V - 2 (s - H)) e for small
    errors e of the logits, up to signs: the derivatives of H = ln Z - A / Z and of the variance of
    s under the softmax.
    """

    entropy_nats: float
    """H."""
    varentropy_nats2: float
    """V."""
    most_of_entropy: float
    """Largest change of H per unit of error, if every logit errs by at most that."""
    spread_of_entropy: float
    """Standard deviation of H per unit of that of independent errors."""
    most_of_varentropy: float
    """Largest change of V per unit of error."""

    @classmethod
    def of(cls, logits: FloatArray) -> RowStatistics:
        """Returns the statistics of one row, shape ``(V,)``."""
        below = np.maximum(logits - logits.max(), EXPONENT_FLOOR)
        weights = np.exp(below)
        total = float(weights.sum())
        p = weights / total
        surprise = math.log(total) - below
        entropy = float(p @ surprise)
        off = surprise - entropy
        varentropy = float(p @ (off * off))
        first = p * off
        return cls(
            entropy_nats=entropy,
            varentropy_nats2=varentropy,
            most_of_entropy=float(np.abs(first).sum()),
            spread_of_entropy=float(np.sqrt((first * first).sum())),
            most_of_varentropy=float(np.abs(p * (off * off - varentropy - 2.0 * off)).sum()),
        )

    def needed_for_entropy(self, recorded: float) -> float:
        """Returns the smallest error of the logits that gives the *recorded* entropy.

        To second order: where all tokens are equally probable, the first order vanishes.
        """
        apart = abs(recorded - self.entropy_nats) - RECORD_ERROR * (1.0 + self.entropy_nats)
        return _root(self.most_of_entropy, 1.0, apart)

    def needed_for_varentropy(self, recorded: float) -> float:
        """Returns the smallest error of the logits that gives the *recorded* varentropy."""
        square = self.varentropy_nats2 + self.entropy_nats**2
        apart = abs(recorded - self.varentropy_nats2) - RECORD_ERROR * (1.0 + square)
        return _root(self.most_of_varentropy, 1.0 + self.varentropy_nats2, apart)


def needed_for_probability(recorded: float, derived: float, temperature: float) -> float:
    """Returns the smallest error of the logits that makes one probability the other.

    ln p = l / T - ln sum exp(l / T) changes by at most 2 d / T if no logit errs by more than d.
    """
    if not derived > 0.0 or not recorded > 0.0:
        return math.inf
    apart = abs(math.log(recorded / derived)) - RECORD_ERROR
    return max(apart, 0.0) * temperature / 2.0


def spread_of_probability(law: FloatArray, rank: int, temperature: float) -> float:
    """Returns the standard deviation of ln p of a token per unit of that of independent errors.

    d ln p = (e - sum p_i e_i) / T.

    Args:
        law: Shape ``(K,)``, the probabilities that the token was drawn from.
        rank: Which of them is its own.
        temperature: T.
    """
    own = float(law[rank])
    square = float(law @ law) - own * own + (1.0 - own) ** 2
    return math.sqrt(max(square, 0.0)) / temperature


def _root(slope: float, curvature: float, apart: float) -> float:
    """Returns the d with slope d + 2 curvature d**2 = apart."""
    if apart <= 0.0:
        return 0.0
    square = slope * slope + 4.0 * _SECOND_ORDER * curvature * apart
    return 2.0 * apart / (slope + math.sqrt(square))
