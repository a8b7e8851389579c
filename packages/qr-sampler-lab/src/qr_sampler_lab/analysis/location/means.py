# SPDX-License-Identifier: Apache-2.0
"""Tests of a mean against what it ought to be, and of two arms against each other."""

from __future__ import annotations

import math
from typing import Final

from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.location.irwin_hall import EXACT_TOKENS, uniform_mean_p_value
from qr_sampler_lab.analysis.location.moments import Moments
from qr_sampler_lab.analysis.results import (
    Alternative,
    Interval,
    TestResult,
    checked_alternative,
    normal_interval,
    normal_p_value,
)

__all__ = [
    "UNIFORM_DEVIATION",
    "UNIFORM_MEAN",
    "difference_test",
    "mean_test",
    "uniform_mean_test",
]

UNIFORM_MEAN: Final = 0.5
UNIFORM_DEVIATION: Final = 1.0 / math.sqrt(12.0)
"""Standard deviation of a uniform number."""

BASELINE_NOTE: Final = (
    "The baseline of {blocks:,} blocks is known no better than its length allows: the standard "
    "error is sqrt(1/N + 1/N_b), not sqrt(1/N)."
)


def mean_test(
    moments: Moments,
    *,
    expected: float = 0.0,
    deviation: float = 1.0,
    baseline_blocks: int | None = None,
    alternative: Alternative = "two-sided",
    about: str = "statistic",
) -> TestResult:
    """Returns the z-test of a mean whose standard deviation is known.

    ``z = (mean - expected) / (deviation * sqrt(1 / N + 1 / N_b))``. The second term is the error of
    the baseline that z-scores refer to: one draw of the baseline's mean shifts all tokens alike, so
    more tokens do not average it out. For the ideal law it is absent.

    Args:
        moments: Of at least one token.
        expected: The mean under the null hypothesis.
        deviation: Standard deviation of one number under the null hypothesis, > 0.
        baseline_blocks: Number N_b of blocks of the baseline, ``None`` without one.
        alternative: The side that counts.
        about: What the numbers are.

    Returns:
        The result whose effect is the distance of the mean from *expected*, in units of one number.

    Raises:
        ConfigError: When there are no tokens.
    """
    _need(moments, 1)
    variance = 1.0 / moments.n + (1.0 / baseline_blocks if baseline_blocks else 0.0)
    error = deviation * math.sqrt(variance)
    effect = moments.mean - expected
    notes = (BASELINE_NOTE.format(blocks=baseline_blocks),) if baseline_blocks else ()
    return TestResult(
        name="mean",
        about=about,
        statistic=effect / error,
        p_value=normal_p_value(effect / error, alternative),
        n=moments.n,
        effect=effect,
        effect_name=f"mean - {expected:g}",
        interval=normal_interval(effect, error),
        alternative=alternative,
        notes=notes,
    )


def uniform_mean_test(
    moments: Moments,
    *,
    baseline_blocks: int | None = None,
    alternative: Alternative = "two-sided",
) -> TestResult:
    """Returns the test of the mean of u against 1/2, exact for few tokens without a baseline.

    Up to :data:`~qr_sampler_lab.analysis.location.irwin_hall.EXACT_TOKENS` tokens the p-value is
    that of the Irwin-Hall law, beyond that the normal one. For a normal statistic the error of a
    baseline moves the mean of u by 0.977 of what this test assumes (3 / pi of its variance), which
    makes it a little too careful.

    Raises:
        ConfigError: When there are no tokens.
    """
    result = mean_test(
        moments,
        expected=UNIFORM_MEAN,
        deviation=UNIFORM_DEVIATION,
        baseline_blocks=baseline_blocks,
        alternative=alternative,
        about="u",
    )
    if baseline_blocks or moments.n > EXACT_TOKENS:
        return result
    return result.with_p_value(uniform_mean_p_value(moments.mean, moments.n, alternative))


def difference_test(
    arm: Moments,
    control: Moments,
    *,
    alternative: Alternative = "two-sided",
    about: str = "statistic",
) -> TestResult:
    """Returns Welch's test of the difference of two means, whatever the sizes of the arms.

    The default comparison: what both arms share, a biased device or a short baseline, cancels. The
    variances are those of the data; the degrees of freedom are Welch's (The generalization of
    "Student's" problem when several different population variances are involved, 1947).

    Args:
        arm: Of at least two tokens.
        control: Of at least two tokens.
        alternative: ``"greater"`` when the arm's mean ought to exceed the control's.
        about: What the numbers are.

    Raises:
        ConfigError: When an arm has fewer than two tokens or neither arm varies.
    """
    _need(arm, 2)
    _need(control, 2)
    parts = arm.variance / arm.n, control.variance / control.n
    error = math.sqrt(sum(parts))
    if error == 0.0:
        raise ConfigError("all numbers of both arms are equal: there is nothing to compare")
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (arm.n - 1) + parts[1] ** 2 / (control.n - 1))
    effect = arm.mean - control.mean
    half = float(special.stdtrit(freedom, 0.975)) * error
    return TestResult(
        name="difference_of_means",
        about=about,
        statistic=effect / error,
        p_value=_student_p_value(effect / error, freedom, alternative),
        n=arm.n + control.n,
        effect=effect,
        effect_name="mean of the arm - mean of the control",
        interval=Interval(low=effect - half, high=effect + half),
        alternative=alternative,
        notes=(f"{arm.n:,} tokens of the arm, {control.n:,} of the control.",),
    )


def _student_p_value(t: float, freedom: float, alternative: Alternative) -> float:
    if checked_alternative(alternative) == "two-sided":
        return float(2.0 * special.stdtr(freedom, -abs(t)))
    return float(special.stdtr(freedom, -t if alternative == "greater" else t))


def _need(moments: Moments, tokens: int) -> None:
    if moments.n < tokens:
        raise ConfigError(
            f"{moments.n} tokens: the test needs at least {tokens}; look whether the selection of "
            "arms and tokens leaves any"
        )
