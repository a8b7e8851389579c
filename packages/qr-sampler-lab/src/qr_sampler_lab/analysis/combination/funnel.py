# SPDX-License-Identifier: Apache-2.0
"""Effects of sessions against their precision, controls included: the funnel plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import (
    Interval,
    TestResult,
    normal_interval,
    normal_p_value,
)

__all__ = ["FunnelData", "Session", "funnel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session of one arm."""

    name: str
    """Of the session."""
    arm: str
    """Of the arm."""
    n: int
    """Number of tokens."""
    effect: float
    """What was estimated."""
    error: float
    """Its standard error, > 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelData:
    """Points, centre and tests of a funnel plot of one arm."""

    arm: str
    """Of the arm."""
    sessions: tuple[Session, ...]
    """The points, the most precise first."""
    pooled: float
    """Inverse-variance mean of the effects: the axis of the funnel, whose sides are at +-1.96
    errors of a session."""
    interval: Interval
    """Interval of the pooled effect."""
    heterogeneity: TestResult
    """Cochran's Q: do sessions differ more than their errors explain?"""
    asymmetry: TestResult
    """Egger's regression: do imprecise sessions show larger effects, as when others are missing?
    Not a number below three sessions."""


def funnel(sessions: Sequence[Session]) -> tuple[FunnelData, ...]:
    """Returns one funnel per arm, in the order in which arms first occur.

    Raises:
        ConfigError: When there are no sessions, or a standard error is not positive.
    """
    if not sessions:
        raise ConfigError("no sessions: a funnel needs at least one")
    for session in sessions:
        if not (session.error > 0.0 and math.isfinite(session.effect)):
            raise ConfigError(
                f"session {session.name!r}: effect {session.effect}, error {session.error}; give a "
                "finite effect and a positive error"
            )
    arms = dict.fromkeys(session.arm for session in sessions)
    return tuple(_of_arm(arm, [each for each in sessions if each.arm == arm]) for arm in arms)


def _of_arm(arm: str, sessions: list[Session]) -> FunnelData:
    effects = np.array([session.effect for session in sessions])
    weights = np.array([session.error for session in sessions]) ** -2.0
    pooled, total = float(np.average(effects, weights=weights)), float(weights.sum())
    return FunnelData(
        arm=arm,
        sessions=tuple(sorted(sessions, key=lambda session: session.error)),
        pooled=pooled,
        interval=normal_interval(pooled, total**-0.5),
        heterogeneity=_cochran(arm, effects, weights, pooled),
        asymmetry=_egger(arm, effects, weights),
    )


def _cochran(
    arm: str, effects: NDArray[np.float64], weights: NDArray[np.float64], pooled: float
) -> TestResult:
    """Returns ``Q = sum w (effect - pooled)**2``, chi-square with K - 1 degrees of freedom.

    (Cochran, The combination of estimates from different experiments, 1954.)
    """
    q, freedom = float((weights * (effects - pooled) ** 2).sum()), effects.size - 1
    return TestResult(
        name="heterogeneity",
        about=arm,
        statistic=q,
        p_value=float(special.chdtrc(freedom, q)) if freedom else math.nan,
        n=effects.size,
        effect=max(0.0, 1.0 - freedom / q) if q > 0.0 else 0.0,
        effect_name="I squared: share of the scatter that errors do not explain",
        notes=() if freedom else ("One session does not scatter.",),
    )


def _egger(arm: str, effects: NDArray[np.float64], weights: NDArray[np.float64]) -> TestResult:
    """Returns the test of the intercept of effect / error on 1 / error.

    (Egger et al., Bias in meta-analysis detected by a simple, graphical test, 1997, in the weighted
    form with known errors: the slope of the effect on the error, weighted by 1 / error**2. Errors
    being known, its z is normal.)
    """
    errors = weights**-0.5
    centre = np.average(errors, weights=weights)
    spread = float((weights * (errors - centre) ** 2).sum())
    notes: tuple[str, ...] = ()
    slope = z = p_value = math.nan
    if effects.size < 3 or spread <= 1e-12 * effects.size:
        notes = ("Needs three sessions of unequal precision.",)
    else:
        slope = float((weights * (errors - centre) * effects).sum()) / spread
        z = slope * math.sqrt(spread)
        p_value = normal_p_value(z)
    return TestResult(
        name="funnel_asymmetry",
        about=arm,
        statistic=z,
        p_value=p_value,
        n=effects.size,
        effect=slope,
        effect_name="change of the effect per unit of its error",
        notes=notes,
    )
