# SPDX-License-Identifier: Apache-2.0
"""The largest distance of an empirical law from the uniform one, or from that of another arm."""

from __future__ import annotations

import math

import numpy as np
from scipy import special, stats

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import TestResult
from qr_sampler_lab.analysis.shape.empirical import EmpiricalLaw

__all__ = ["kolmogorov_smirnov", "two_sample_ks"]


def kolmogorov_smirnov(law: EmpiricalLaw, *, about: str = "u") -> TestResult:
    """Returns the test of Kolmogorov and Smirnov against the uniform law.

    The p-value is that of the exact law of D (Simard and L'Ecuyer, Computing the two-sided
    Kolmogorov-Smirnov distribution, 2011, as in ``scipy.stats.kstwo``).

    Raises:
        ConfigError: When there are no numbers.
    """
    _need(law)
    distance = _distance(law)
    return TestResult(
        name="kolmogorov_smirnov",
        about=about,
        statistic=distance,
        p_value=float(stats.kstwo.sf(distance, law.n)),
        n=law.n,
        effect=distance,
        effect_name="largest distance from the uniform law",
        notes=() if law.is_exact else ("Counted in fine cells.",),
    )


def two_sample_ks(arm: EmpiricalLaw, control: EmpiricalLaw, *, about: str = "u") -> TestResult:
    """Returns the two-sample test of Kolmogorov and Smirnov.

    Exact up to 10,000 numbers per arm (``scipy.stats.ks_2samp``), then by the limiting law at
    ``sqrt(n m / (n + m)) D`` (Hodges, The significance probability of the Smirnov two-sample test,
    1958). Ties, as on a coarse lattice, make it careful.

    Raises:
        ConfigError: When an arm has no numbers.
    """
    _need(arm)
    _need(control)
    note = f"{arm.n:,} tokens of the arm, {control.n:,} of the control."
    if arm.is_exact and control.is_exact:
        found = stats.ks_2samp(arm.sorted(), control.sorted())
        distance, p_value = float(found.statistic), float(found.pvalue)
    else:
        gap = np.cumsum(arm.counts()) / arm.n - np.cumsum(control.counts()) / control.n
        distance = float(np.abs(gap).max())
        p_value = float(
            special.kolmogorov(math.sqrt(arm.n * control.n / (arm.n + control.n)) * distance)
        )
    return TestResult(
        name="two_sample_ks",
        about=about,
        statistic=distance,
        p_value=p_value,
        n=arm.n + control.n,
        effect=distance,
        effect_name="largest distance between the laws of the arms",
        notes=(note,),
    )


def _distance(law: EmpiricalLaw) -> float:
    if law.is_exact:
        values = law.sorted()
        steps = np.arange(law.n + 1) / law.n
        return float(max((steps[1:] - values).max(), (values - steps[:-1]).max()))
    shares = np.cumsum(law.counts()) / law.n
    return float(np.abs(shares - np.arange(1, shares.size + 1) / shares.size).max())


def _need(law: EmpiricalLaw) -> None:
    if not law.n:
        raise ConfigError("no numbers: look whether the selection of tokens leaves any")
