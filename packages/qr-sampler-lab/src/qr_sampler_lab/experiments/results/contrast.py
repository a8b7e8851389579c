# SPDX-License-Identifier: Apache-2.0
"""Tests of a contrast: a weighted sum of the means of arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import Alternative, Moments

__all__ = ["ContrastResult", "block_score", "block_test", "contrast_test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastResult:
    """What a contrast shows."""

    estimate: float
    """Sum of weight times mean."""
    error: float
    """Its standard error."""
    score: float
    """The estimate in standard errors: t, or z where the variance is known."""
    degrees: float
    """Degrees of freedom; infinite where the variance is known."""
    p_value: float
    """Probability of a score as extreme under the null hypothesis."""
    low: float
    """Lower end of the two-sided interval of 95 %."""
    high: float
    """Its upper end."""
    tokens: dict[str, int]
    """Number of tokens of each arm."""


def contrast_test(
    moments: Mapping[str, Moments],
    weights: Mapping[str, float],
    *,
    between_arms: bool,
    alternative: Alternative,
) -> ContrastResult:
    """Returns the test of a contrast against 0.

    Between arms the variances are those of the data, ``error**2 = sum w**2 s**2 / n``, with the
    degrees of freedom of B. L. Welch, "The generalization of 'Student's' problem when several
    different population variances are involved", Biometrika 34 (1947) 28-35, which F. E.
    Satterthwaite (Biometrics Bulletin 2 (1946) 110-114) states for any number of arms:
    ``error**4 / sum((w**2 s**2 / n)**2 / (n - 1))``. Against theory the variance of a score is 1.

    Args:
        moments: Of the scores of each arm, whose mean and variance are 0 and 1 in theory.
        weights: The contrast.
        between_arms: Whether the weights add up to zero.
        alternative: The side that counts.

    Raises:
        ConfigError: When an arm has fewer than two tokens, or nothing varies.
    """
    for arm in weights:
        if moments[arm].n < 2:
            raise ConfigError(f"arm {arm!r} has {moments[arm].n} tokens that count; two are needed")
    estimate = math.fsum(weight * moments[arm].mean for arm, weight in weights.items())
    parts = {
        arm: weight**2 * (moments[arm].variance if between_arms else 1.0) / moments[arm].n
        for arm, weight in weights.items()
    }
    variance = math.fsum(parts.values())
    if variance <= 0.0:
        raise ConfigError("all numbers of all arms are equal: there is nothing to compare")
    degrees = math.inf
    if between_arms:
        degrees = variance**2 / math.fsum(
            part**2 / (moments[arm].n - 1) for arm, part in parts.items()
        )
    error = math.sqrt(variance)
    half = (float(special.stdtrit(degrees, 0.975)) if between_arms else _NORMAL_975) * error
    return ContrastResult(
        estimate=estimate,
        error=error,
        score=estimate / error,
        degrees=degrees,
        p_value=_p_value(estimate / error, degrees, alternative),
        low=estimate - half,
        high=estimate + half,
        tokens={arm: moments[arm].n for arm in weights},
    )


def block_score(scores: Mapping[str, list[float]], weights: Mapping[str, float]) -> float | None:
    """Returns the z of one block: its contrast, divided by the error that theory gives it.

    Args:
        scores: Of each arm in the block, of mean 0 and variance 1 in theory.
        weights: The contrast.

    Returns:
        The score; ``None`` if an arm of the contrast has no tokens in the block.
    """
    if any(not scores.get(arm) for arm in weights):
        return None
    estimate = math.fsum(
        weight * math.fsum(scores[arm]) / len(scores[arm]) for arm, weight in weights.items()
    )
    variance = math.fsum(weight**2 / len(scores[arm]) for arm, weight in weights.items())
    return estimate / math.sqrt(variance)


def block_test(scores: Sequence[float], alternative: Alternative) -> dict[str, float | str]:
    """Returns Student's test of the scores of blocks against 0, as JSON-ready values.

    Its error is that of the scores themselves, so that a device that drifts from block to block,
    whose tokens are not independent, finds nothing by that. Arms are randomised within blocks.

    Args:
        scores: One of each block.
        alternative: The side that counts.
    """
    moments = Moments()
    moments.add(scores)
    if moments.n < 2 or moments.deviation <= 0.0:
        return {"cannot_be_said": f"{moments.n} blocks do not show how much they differ"}
    score = moments.mean * math.sqrt(moments.n) / moments.deviation
    return {
        "blocks": moments.n,
        "deviation": moments.deviation,
        "score": score,
        "p_value": _p_value(score, moments.n - 1.0, alternative),
    }


_NORMAL_975 = float(special.ndtri(0.975))


def _p_value(score: float, degrees: float, alternative: Alternative) -> float:
    if alternative == "two-sided":
        return 2.0 * _below(-abs(score), degrees)
    return _below(-score if alternative == "greater" else score, degrees)


def _below(score: float, degrees: float) -> float:
    if math.isinf(degrees):
        return float(special.ndtr(score))
    return float(special.stdtr(degrees, score))
