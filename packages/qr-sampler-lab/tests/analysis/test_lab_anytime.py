# SPDX-License-Identifier: Apache-2.0
"""E-processes and boundaries: against ville, against numerical integration, and as promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats
from ville.means import GaussianMixtureCS
from ville.sequential import MSPRT

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import (
    EProcess,
    PairedStreams,
    fixed_boundary,
    log_e_values,
    smallest_tau_width,
    ville_boundary,
)


@pytest.mark.parametrize("tau", [1e-3, 0.1, 4.0])
@pytest.mark.parametrize(("shift", "chunks"), [(0.0, 1), (0.0, 7), (0.3, 3), (-5.0, 2)])
def test_the_e_process_is_villes_to_nine_digits(tau: float, shift: float, chunks: int) -> None:
    scores = np.random.default_rng(chunks).standard_normal(400) + shift
    process, oracle = EProcess(tau=tau), MSPRT(tau=tau)
    ours = np.concatenate([process.add(each) for each in np.array_split(scores, chunks)])
    theirs = oracle.fit(scores).log_e_values_
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)
    result = process.result()
    assert result.log_e == ours[-1]
    assert result.n == 400
    assert result.log_e_max == max(0.0, ours.max())
    crossed = np.flatnonzero(ours >= math.log(20.0))
    assert result.crossed_at == (crossed[0] + 1 if crossed.size else None)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize(("n", "total"), [(1, 0.5), (40, 12.0), (40, -9.0), (500, 3.0)])
def test_the_one_sided_e_value_is_its_integral(side: float, n: int, total: float) -> None:
    """The mean of the likelihood ratio exp(mu S - n mu**2 / 2) under the half-normal prior."""
    tau = 0.2

    def integrand(size: float) -> float:
        prior = 2.0 * stats.norm.pdf(size, scale=tau)
        return float(prior * math.exp(side * size * total - n * size**2 / 2.0))

    value, _ = integrate.quad(integrand, 0.0, 10 * tau, limit=200)
    alternative = "greater" if side > 0 else "less"
    log_e = log_e_values(n, total, tau=tau, alternative=alternative)
    assert float(log_e) == pytest.approx(math.log(value), abs=1e-7)


def test_the_two_sided_boundary_is_villes() -> None:
    oracle = GaussianMixtureCS(alpha=0.05, t_opt=700, intersect=False).fit(np.zeros(10_000))
    n = np.arange(1, 10_001)
    # Their precision rho is 1 / tau**2, and they bound the mean.
    ours = ville_boundary(n, tau=oracle.rho_**-0.5, alpha=0.05)
    assert ours == pytest.approx(oracle.upper_ * n, rel=1e-9)


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_a_boundary_is_where_evidence_reaches_its_limit(alternative: str) -> None:
    n = np.array([1, 10, 500, 10_000])
    boundary = ville_boundary(n, tau=0.1, alpha=0.01, alternative=alternative)
    log_e = log_e_values(n, boundary, tau=0.1, alternative=alternative)
    assert log_e == pytest.approx(np.full(4, math.log(100.0)), rel=1e-9)
    assert (boundary > fixed_boundary(n, alpha=0.01, alternative=alternative)).all()


def test_the_fixed_boundary_is_the_normal_quantile() -> None:
    assert fixed_boundary(400) == pytest.approx(1.959964 * 20, rel=1e-6)
    assert fixed_boundary(400, alternative="greater") == pytest.approx(1.644854 * 20, rel=1e-6)


@pytest.mark.parametrize("n", [100, 2_000, 10**6])
def test_the_best_tau_equals_villes(n: int) -> None:
    oracle = GaussianMixtureCS(alpha=0.05, t_opt=n)
    assert smallest_tau_width(n) == pytest.approx(oracle.rho_**-0.5, rel=1e-3)


def test_an_alarm_stays_and_its_p_value_is_the_largest_evidence() -> None:
    process = EProcess(tau=0.5, alpha=0.05)
    process.add(np.full(30, 1.0))
    process.add(np.full(60, -1.0))
    result = process.result()
    assert result.crossed_at is not None
    assert result.crossed_at <= 30
    assert result.n_at_max == 30
    assert result.log_e < result.log_e_max
    assert result.p_value == pytest.approx(math.exp(-result.log_e_max))
    assert result.p_value < 0.05


def test_the_opposite_side_is_no_evidence() -> None:
    process = EProcess(tau=0.5, alternative="less")
    process.add(np.full(100, 1.0))
    assert process.result().p_value == 1.0
    assert process.result().log_e < -3.0


def test_pairs_cancel_what_arms_share_and_do_not_depend_on_chunks() -> None:
    rng = np.random.default_rng(1)
    scores, is_arm = rng.standard_normal(600), rng.random(600) < 0.4
    whole, parts, shifted = PairedStreams(), PairedStreams(), PairedStreams()
    pairs = whole.add(scores, is_arm)
    split = [
        parts.add(part, mask)
        for part, mask in zip(np.array_split(scores, 9), np.array_split(is_arm, 9), strict=True)
    ]
    assert (np.concatenate(split) == pairs).all()
    assert parts.waiting == whole.waiting
    assert shifted.add(scores + 3.0, is_arm) == pytest.approx(pairs)
    m = min(is_arm.sum(), (~is_arm).sum())
    assert pairs == pytest.approx((scores[is_arm][:m] - scores[~is_arm][:m]) / math.sqrt(2))
    assert whole.waiting == 600 - 2 * m


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: EProcess(tau=0.0), "tau=0.0"),
        (lambda: EProcess(tau=math.inf), "tau=inf"),
        (lambda: EProcess(tau=0.1, alpha=1.0), "alpha=1.0"),
        (lambda: EProcess(tau=0.1).add([math.inf]), "finite"),
        (lambda: PairedStreams().add([1.0, 2.0], [True]), "2 scores but 1 arms"),
    ],
)
def test_bad_input_is_named(call: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
