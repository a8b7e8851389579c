# SPDX-License-Identifier: Apache-2.0
"""Combinations: SciPy, statsmodels and the definitions in a few lines of NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import (
    NetworkVariance,
    Sensitivity,
    Session,
    answer_means,
    benjamini_hochberg,
    discards_test,
    funnel,
    holm,
    stouffer,
)


@pytest.mark.parametrize("weighted", [False, True])
def test_stouffer_equals_scipys(weighted: bool) -> None:
    rng = np.random.default_rng(1)
    z, weights = rng.standard_normal(9), rng.uniform(1, 5, 9) if weighted else None
    result = stouffer(z, weights, alternative="greater")
    oracle = stats.combine_pvalues(stats.norm.sf(z), method="stouffer", weights=weights)
    assert result.statistic == pytest.approx(oracle.statistic)
    assert result.p_value == pytest.approx(oracle.pvalue)


def test_stouffer_of_arms_weighted_by_their_roots_is_the_pooled_score() -> None:
    rng = np.random.default_rng(2)
    parts = [rng.standard_normal(n) for n in (10, 300, 70)]
    z = [part.sum() / math.sqrt(part.size) for part in parts]
    pooled = np.concatenate(parts)
    result = stouffer(z, [math.sqrt(part.size) for part in parts])
    assert result.statistic == pytest.approx(pooled.sum() / math.sqrt(pooled.size))


@pytest.mark.parametrize("size", [1, 2, 40])
def test_adjusted_p_values_equal_those_of_scipy_and_statsmodels(size: int) -> None:
    # Rounded, so that there are ties.
    p_values = (np.random.default_rng(size).random(size) ** 3).round(2)
    assert benjamini_hochberg(p_values) == pytest.approx(stats.false_discovery_control(p_values))
    assert benjamini_hochberg(p_values) == pytest.approx(
        multipletests(p_values, method="fdr_bh")[1]
    )
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_network_variance_by_its_definition() -> None:
    scores = np.random.default_rng(3).standard_normal((400, 6))
    network = NetworkVariance()
    for part in np.array_split(scores, 5):
        network.add(part)
    netvar = ((scores.sum(axis=1) / math.sqrt(6)) ** 2).sum()
    assert network.netvar_test().statistic == pytest.approx(netvar)
    assert network.netvar_test().p_value == pytest.approx(stats.chi2.sf(netvar, 400))
    products = [scores[:, i] * scores[:, j] for i in range(6) for j in range(i)]
    pairs = network.pairs_test()
    assert pairs.effect == pytest.approx(np.mean(products))
    assert pairs.n == 400 * 15
    assert pairs.statistic == pytest.approx(np.mean(products) * math.sqrt(400 * 15))


def test_absent_sources_count_for_nothing_and_common_ones_show() -> None:
    rng = np.random.default_rng(4)
    scores = rng.standard_normal((3_000, 4))
    wide = np.column_stack([scores, np.full(3_000, np.nan)])
    wide = np.vstack([wide, np.full(5, np.nan)])
    plain, absent, common = NetworkVariance(), NetworkVariance(), NetworkVariance()
    plain.add(scores)
    absent.add(wide)
    common.add((scores + 0.4 * rng.standard_normal((3_000, 1))) / math.sqrt(1.16))
    assert absent.netvar_test() == plain.netvar_test()
    assert absent.pairs_test() == plain.pairs_test()
    assert plain.pairs_test().p_value > 1e-3
    assert common.pairs_test().p_value < 1e-12


def sessions_of(effects: np.ndarray, errors: np.ndarray, arm: str = "a") -> list[Session]:
    return [
        Session(name=str(k), arm=arm, n=100, effect=effect, error=error)
        for k, (effect, error) in enumerate(zip(effects.tolist(), errors.tolist(), strict=True))
    ]


def test_funnel_equals_the_meta_analysis_of_statsmodels() -> None:
    rng = np.random.default_rng(5)
    errors = rng.uniform(0.1, 1.0, 20)
    effects = 0.2 + errors * rng.standard_normal(20)
    (data,) = funnel(sessions_of(effects, errors))
    oracle = combine_effects(effects, errors**2)
    assert data.pooled == pytest.approx(oracle.mean_effect_fe)
    assert data.heterogeneity.statistic == pytest.approx(oracle.q)
    assert data.heterogeneity.effect == pytest.approx(max(0.0, oracle.i2))
    assert data.interval.high - data.pooled == pytest.approx(
        1.959964 * oracle.sd_eff_w_fe, rel=1e-6
    )
    regression = sm.WLS(effects, sm.add_constant(errors), weights=errors**-2).fit()
    assert data.asymmetry.effect == pytest.approx(regression.params[1])
    known = regression.bse[1] / math.sqrt(regression.scale)
    assert data.asymmetry.statistic == pytest.approx(regression.params[1] / known)
    assert [each.error for each in data.sessions] == sorted(errors)


def test_funnel_shows_what_is_missing_and_what_cannot_be_said() -> None:
    rng = np.random.default_rng(6)
    errors = rng.uniform(0.1, 1.0, 400)
    effects = errors * rng.standard_normal(400)
    seen = effects / errors > 0.0
    shown, everything = funnel(
        [*sessions_of(effects[seen], errors[seen]), *sessions_of(effects, errors, "control")]
    )
    assert (shown.arm, everything.arm) == ("a", "control")
    assert shown.asymmetry.p_value < 1e-6 < 1e-3 < everything.asymmetry.p_value
    (single,) = funnel(sessions_of(effects[:1], errors[:1]))
    assert math.isnan(single.heterogeneity.p_value)
    assert single.heterogeneity.notes
    (equal,) = funnel(sessions_of(effects[:5], np.ones(5)))
    assert math.isnan(equal.asymmetry.p_value)
    assert equal.asymmetry.notes


def test_sensitivity_is_three_ordinary_tests() -> None:
    rng = np.random.default_rng(7)
    values, flagged = rng.standard_normal(500), rng.random(500) < 0.1
    sensitivity = Sensitivity()
    for part, mask in zip(np.array_split(values, 3), np.array_split(flagged, 3), strict=True):
        sensitivity.add(part, mask)
    without, with_, compared = sensitivity.results()
    assert without.statistic == pytest.approx(values[~flagged].mean() * math.sqrt((~flagged).sum()))
    assert with_.statistic == pytest.approx(values.mean() * math.sqrt(500))
    oracle = stats.ttest_ind(values[flagged], values[~flagged], equal_var=False)
    assert compared.p_value == pytest.approx(oracle.pvalue)
    assert f"{flagged.sum()} of 500" in without.notes[-1]


def test_without_fallback_tokens_nothing_is_compared() -> None:
    sensitivity = Sensitivity()
    sensitivity.add([0.1, 0.2], [False, False])
    without, with_ = sensitivity.results()
    assert without.statistic == pytest.approx(with_.statistic)


@pytest.mark.parametrize("counts", [((3, 12), (400, 380)), ((30, 90, 20), (9_000, 9_100, 5_000))])
def test_discards_equal_scipys_tests_of_tables(counts: tuple[tuple[int, ...], ...]) -> None:
    table = np.array(counts)
    result = discards_test(*counts)
    if table.shape[1] == 2:
        assert result.p_value == pytest.approx(stats.fisher_exact(table).pvalue)
    else:
        oracle = stats.chi2_contingency(table, correction=False)
        assert (result.statistic, result.p_value) == pytest.approx(oracle[:2])
    assert discards_test([0, 0], [10, 20]).p_value == 1.0


def test_means_per_answer_need_fixed_lengths() -> None:
    values, answers = [0.1, 0.3, 0.8, 0.6], ["b", "b", "a", "a"]
    assert answer_means(values, answers, lengths_fixed=True) == pytest.approx([0.7, 0.2])
    with pytest.raises(ConfigError, match="u decides where an answer ends"):
        answer_means(values, answers, lengths_fixed=False)
    with pytest.raises(ConfigError, match="answers of 1 to 3 tokens"):
        answer_means(values, ["b", "a", "a", "a"], lengths_fixed=True)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stouffer([]), "0 scores"),
        (lambda: stouffer([1.0], [0.0]), "positive weight"),
        (lambda: holm([1.5]), "probabilities"),
        (lambda: NetworkVariance().add([1.0]), "one row per time"),
        (lambda: NetworkVariance().netvar_test(), "no scores"),
        (lambda: NetworkVariance().pairs_test(), "pairs need two"),
        (lambda: funnel([]), "no sessions"),
        (lambda: funnel(sessions_of(np.ones(1), np.zeros(1))), "positive error"),
        (lambda: Sensitivity().add([1.0], [True, False]), "1 values but 2 flags"),
        (lambda: discards_test([1], [2]), "two arms"),
        (lambda: answer_means([1.0], [1, 2], lengths_fixed=True), "one per token"),
    ],
)
def test_bad_input_is_named(call: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
