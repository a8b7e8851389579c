# SPDX-License-Identifier: Apache-2.0
"""One z of many."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import (
    Alternative,
    TestResult,
    checked_numbers,
    normal_p_value,
)

__all__ = ["stouffer"]


def stouffer(
    z: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    alternative: Alternative = "two-sided",
    about: str = "sessions",
) -> TestResult:
    """Returns ``sum w_i z_i / sqrt(sum w_i**2)``, standard normal when all z are.

    (Stouffer et al., The American Soldier, 1949; Lipták 1958 for the weights.) With the roots of
    the numbers of tokens as weights it is the z of all tokens pooled.

    Args:
        z: Independent z-scores. Shape ``(K,)``.
        weights: Positive, shape ``(K,)``; equal by default.
        alternative: The side that counts.
        about: What the scores are.

    Raises:
        ConfigError: When there is nothing to combine, or the weights do not fit.

    Examples:
        >>> stouffer([1.0, 1.0, 1.0, 1.0]).statistic
        2.0
    """
    scores = checked_numbers(z, name="z")
    shares = np.ones(scores.size) if weights is None else checked_numbers(weights, name="weights")
    if not scores.size or shares.size != scores.size or not (shares > 0.0).all():
        raise ConfigError(
            f"{scores.size} scores, {shares.size} weights: give at least one score and one "
            "positive weight for each"
        )
    combined = float(np.dot(shares, scores)) / math.sqrt(float(np.dot(shares, shares)))
    return TestResult(
        name="stouffer",
        about=about,
        statistic=combined,
        p_value=normal_p_value(combined, alternative),
        n=scores.size,
        effect=float(np.average(scores, weights=shares)),
        effect_name="weighted mean of the z-scores",
        alternative=alternative,
        notes=(f"{scores.size:,} scores.",),
    )
