# SPDX-License-Identifier: Apache-2.0
"""Do the numbers scatter as widely as they ought to, and are their tails as heavy?"""

from __future__ import annotations

from typing import Final

from scipy import special, stats

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.intervals import wilson_interval
from qr_sampler_lab.analysis.location import Moments
from qr_sampler_lab.analysis.results import Interval, TestResult
from qr_sampler_lab.analysis.shape.empirical import EmpiricalLaw

__all__ = ["UNIFORM_EXCESS", "tail_test", "variance_ratio_test", "variance_test"]

UNIFORM_EXCESS: Final = -1.2
"""Excess kurtosis of the uniform law."""

_TAIL: Final = 2.0**-7
_FEW: Final = 10


def variance_test(
    moments: Moments,
    *,
    deviation: float = 1.0,
    excess_kurtosis: float = 0.0,
    about: str = "statistic",
) -> TestResult:
    """Returns the chi-square test of a variance, two-sided.

    The unbiased variance has the variance ``sigma**4 (g / n + 2 / (n - 1))`` with the excess
    kurtosis g, so ``nu s**2 / sigma**2`` with ``nu = 2 / (g / n + 2 / (n - 1))`` matches the first
    two moments of a chi-square with nu degrees of freedom (Box, Non-normality and tests on
    variances, 1953). For normal numbers it is the exact test.

    Args:
        moments: Of at least two numbers.
        deviation: Standard deviation under the null hypothesis.
        excess_kurtosis: Under the null hypothesis; -1.2 for u.
        about: What the numbers are.

    Raises:
        ConfigError: When there are fewer than two numbers, or fewer than ten that are all equal, as
            the counts of short blocks may be.
    """
    freedom = _freedom(moments, excess_kurtosis)
    ratio = moments.variance / deviation**2
    lower, upper = special.chdtr(freedom, freedom * ratio), special.chdtrc(freedom, freedom * ratio)
    quantiles = special.chdtri(freedom, 0.025), special.chdtri(freedom, 0.975)
    return TestResult(
        name="variance",
        about=about,
        statistic=freedom * ratio,
        p_value=min(1.0, 2.0 * float(min(lower, upper))),
        n=moments.n,
        effect=ratio,
        effect_name="variance / expected variance",
        interval=Interval(
            low=freedom * ratio / float(quantiles[0]), high=freedom * ratio / float(quantiles[1])
        ),
    )


def variance_ratio_test(
    arm: Moments, control: Moments, *, excess_kurtosis: float = 0.0, about: str = "statistic"
) -> TestResult:
    """Returns the F test of the ratio of two variances, with the freedom of :func:`variance_test`.

    Raises:
        ConfigError: When an arm has fewer than two numbers or fewer than ten that are all equal, or
            the control does not vary.
    """
    above, below = _freedom(arm, excess_kurtosis), _freedom(control, excess_kurtosis)
    if control.variance == 0.0:
        raise ConfigError("all numbers of the control are equal: there is no ratio of variances")
    ratio = arm.variance / control.variance
    tail = min(special.fdtr(above, below, ratio), special.fdtrc(above, below, ratio))
    return TestResult(
        name="ratio_of_variances",
        about=about,
        statistic=ratio,
        p_value=min(1.0, 2.0 * float(tail)),
        n=arm.n + control.n,
        effect=ratio,
        effect_name="variance of the arm / variance of the control",
        interval=Interval(
            low=ratio / float(special.fdtri(above, below, 0.975)),
            high=ratio / float(special.fdtri(above, below, 0.025)),
        ),
    )


def tail_test(law: EmpiricalLaw, *, about: str = "u") -> TestResult:
    """Returns the exact binomial test of how many numbers lie within 1/128 of 0 or of 1.

    Two-sided by adding all counts that are no likelier (``scipy.stats.binomtest``).

    Raises:
        ConfigError: When there are no numbers.
    """
    if not law.n:
        raise ConfigError("no numbers: look whether the selection of tokens leaves any")
    inside = law.share_below(1.0 - _TAIL) - law.share_below(_TAIL)
    hits = law.n - round(inside * law.n)
    interval = wilson_interval(hits, law.n)
    return TestResult(
        name="tails",
        about=about,
        statistic=float(hits),
        p_value=float(stats.binomtest(hits, law.n, 2.0 * _TAIL).pvalue),
        n=law.n,
        effect=hits / law.n / (2.0 * _TAIL),
        effect_name="share in the outer 1/64 / expected share",
        interval=Interval(low=interval.low / (2.0 * _TAIL), high=interval.high / (2.0 * _TAIL)),
    )


def _freedom(moments: Moments, excess_kurtosis: float) -> float:
    if moments.n < 2:
        raise ConfigError(f"{moments.n} numbers: a variance needs at least two")
    if moments.n < _FEW and moments.variance == 0.0:
        raise ConfigError(f"all of {moments.n} numbers are equal: so few may be so by chance")
    return 2.0 / (excess_kurtosis / moments.n + 2.0 / (moments.n - 1))
