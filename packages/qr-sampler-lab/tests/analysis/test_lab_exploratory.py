# SPDX-License-Identifier: Apache-2.0
"""Exploratory analyses: labelled, by their definitions, and against all permutations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import (
    BlockMeans,
    EProcess,
    SplitMeans,
    change_of_evidence,
    window_sensitivity,
)


def path(scores: np.ndarray, tau: float) -> np.ndarray:
    return EProcess(tau=tau).add(scores)


def test_figures_are_those_of_the_e_process() -> None:
    scores = np.random.default_rng(1).standard_normal(64)
    change = change_of_evidence(scores, tau=0.3, permutations=10)
    log_e = path(scores, 0.3)
    k = np.arange(64)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(1, 33), k) / 64) @ log_e
    figures = [each.statistic for each in change.results]
    assert figures == pytest.approx([log_e.max(), log_e.mean(), np.abs(waves).sum()])
    assert all(each.exploratory for each in change.results)


def test_p_values_agree_with_those_of_all_permutations() -> None:
    scores = np.array([2.0, 1.0, 1.0, -1.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    # All 10! / (2! 5!) orders would do; those of the nonzero five in the first half are enough to
    # enumerate, so compare a larger peak than theirs: with everything positive first.
    orders = set(itertools.permutations((2.0, 1.0, 1.0, -1.0, -2.0)))
    spots = list(itertools.combinations(range(10), 5))
    observed, larger, total = path(scores, 0.5).max(), 0, 0
    for spot in spots:
        table = np.zeros((len(orders), 10))
        table[:, spot] = np.array(sorted(orders))
        sums, n = table.cumsum(axis=1), np.arange(1, 11)
        log_e = 0.125 * sums**2 / (1 + 0.25 * n) - 0.5 * np.log(1 + 0.25 * n)
        larger += int((log_e.max(axis=1) >= observed - 1e-9).sum())
        total += len(orders)
    peak = change_of_evidence(scores, tau=0.5, permutations=20_000).peak
    assert peak.p_value == pytest.approx(larger / total, abs=5 * math.sqrt(0.25 / 20_000))


def test_an_early_effect_shows_and_long_series_are_condensed() -> None:
    rng = np.random.default_rng(2)
    scores = rng.standard_normal(10_000)
    scores[:3_000] += 0.15
    scores[3_000:6_000] -= 0.15
    change = change_of_evidence(scores, tau=0.05, permutations=999)
    assert change.points == 2_000
    assert change.peak.p_value <= 0.002
    condensed = scores.reshape(2_000, 5).sum(axis=1) / math.sqrt(5)
    assert change.peak.statistic == pytest.approx(path(condensed, 0.05 * math.sqrt(5)).max())
    # The condensed path is the path at every fifth token.
    assert path(condensed, 0.05 * math.sqrt(5)) == pytest.approx(path(scores, 0.05)[4::5])


def test_split_means_are_an_analysis_of_variance_with_known_variance() -> None:
    rng = np.random.default_rng(3)
    z, entropy = rng.standard_normal(900), rng.random(900)
    split = SplitMeans([0.25, 0.5], by="entropy_nats")
    for part, key in zip(np.array_split(z, 4), np.array_split(entropy, 4), strict=True):
        split.add(part, key)
    parts = [z[entropy < 0.25], z[(entropy >= 0.25) & (entropy < 0.5)], z[entropy >= 0.5]]
    chi_square = sum(part.size * (part.mean() - z.mean()) ** 2 for part in parts)
    result = split.result()
    assert result.statistic == pytest.approx(chi_square)
    assert result.p_value == pytest.approx(stats.chi2.sf(chi_square, 2))
    assert result.exploratory
    assert result.name == "split_by_entropy_nats"


def test_ranks_that_u_selects_are_refused_and_would_mislead() -> None:
    with pytest.raises(ConfigError, match="the rank of the token before"):
        SplitMeans([1.5], by="rank")
    u = np.random.default_rng(4).random(2_000)
    rank = np.searchsorted([0.5, 0.8], u)
    own, before = (SplitMeans([0.5], by="previous_rank", deviation=12**-0.5) for _ in range(2))
    own.add(u, rank)
    before.add(u[1:], rank[:-1])
    assert own.result().p_value < 1e-300
    assert before.result().p_value > 1e-3


def test_windows_are_z_scores_of_their_tokens() -> None:
    z = np.random.default_rng(5).standard_normal(2_000)
    z[800:1_200] += 0.3
    blocks = BlockMeans(100)
    blocks.add(z)
    found = window_sensitivity(blocks.means, 8, 12, block_tokens=100, reach=3)
    assert found.declared == pytest.approx(z[800:1_200].sum() / 20)
    assert found.z[0, 6] == pytest.approx(z[500:1_500].sum() / math.sqrt(1_000))
    assert math.isnan(found.z[6, 0])
    assert found.exploratory
    assert found.largest == np.nanmax(found.z)
    assert found.smallest == np.nanmin(found.z)
    assert found.share_significant > 0.5
    flat = window_sensitivity(np.zeros(20), 8, 12, block_tokens=100, reach=3)
    assert flat.share_significant == 0.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: change_of_evidence(np.zeros(9), tau=0.1), "9 scores"),
        (lambda: SplitMeans([1.0, 1.0], by="temperature"), "ascending"),
        (lambda: SplitMeans([1.0], by="temperature").add([1.0], [1.0, 2.0]), "one each"),
        (lambda: SplitMeans([1.0], by="temperature").result(), "one range of temperature"),
        (lambda: window_sensitivity([0.0], 0, 2, block_tokens=1, reach=0), "0:2 of 1 blocks"),
    ],
)
def test_bad_input_is_named(call: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call()
