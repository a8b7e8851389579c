# SPDX-License-Identifier: Apache-2.0
"""The latency classifier: what it must find, what it must not, and how sure it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import classify_latency


def test_normal_latencies_are_named_as_well_as_can_be() -> None:
    """Two normal laws two deviations apart: the best rule is right with Phi(1)."""
    rng = np.random.default_rng(1)
    arm = np.array(["device", "sham"])[np.arange(20_000) % 2]
    latency = 1e6 + 1e5 * (rng.standard_normal(20_000) + 2.0 * (arm == "sham"))
    result = classify_latency(latency, arm)
    assert result.balanced_accuracy == pytest.approx(stats.norm.cdf(1.0), abs=0.015)
    assert result.share == pytest.approx(result.balanced_accuracy, abs=1e-3)
    assert not result.stays_below(0.55)
    half = 1.96 * math.sqrt(0.8413 * 0.1587 / 20_000)
    assert result.interval.high - result.balanced_accuracy == pytest.approx(half, rel=0.05)


def test_equal_latencies_of_unequal_arms_are_a_guess() -> None:
    rng = np.random.default_rng(2)
    arm = np.where(rng.random(20_000) < 0.2, "device", "sham")
    result = classify_latency(rng.gamma(2.0, 1e5, 20_000), arm)
    assert result.balanced_accuracy == pytest.approx(0.5, abs=0.02)
    assert result.stays_below(0.55)
    assert result.arms == ("device", "sham")
    assert result.n_draws == 20_000


def test_a_difference_of_spread_alone_is_found() -> None:
    rng = np.random.default_rng(3)
    arm = np.array(["a", "b"])[np.arange(8_000) % 2]
    latency = 1e6 + rng.standard_normal(8_000) * np.where(arm == "a", 1e4, 1e5)
    assert classify_latency(latency, arm).balanced_accuracy > 0.8


def test_what_is_only_remembered_does_not_count() -> None:
    # Every latency occurs once: the rule for a half is useless for the other.
    rng = np.random.default_rng(4)
    arm = rng.permutation(np.repeat(["a", "b"], 2_000))
    assert classify_latency(rng.permutation(4_000), arm).stays_below(0.55)


def test_few_draws_prove_nothing() -> None:
    rng = np.random.default_rng(5)
    arm = np.array(["a", "b"])[np.arange(60) % 2]
    result = classify_latency(np.ones(60), arm)
    assert result.balanced_accuracy == 0.5
    assert not result.stays_below(0.55)
    assert classify_latency(rng.random(60), arm, tokens=np.full(60, 4)).n_tokens == 240


def test_tokens_weigh_the_share_and_not_the_interval() -> None:
    latency = np.tile([1.0, 2.0], 200)
    arm = np.tile(["a", "b"], 200)
    arm[:40] = np.tile(["b", "a"], 20)
    tokens = np.where(np.arange(400) < 40, 9, 1)
    plain, weighed = classify_latency(latency, arm), classify_latency(latency, arm, tokens=tokens)
    assert plain.share == pytest.approx(0.9)
    assert weighed.share == pytest.approx(360 / (360 + 9 * 40))
    assert weighed.interval == plain.interval


def test_the_interval_covers_the_truth() -> None:
    """The rule of alternatives a and b at 50 %: it is wrong in about 5 % of 300 runs."""
    rng = np.random.default_rng(6)
    arm = np.array(["a", "b"])[np.arange(400) % 2]
    covered = 0
    for _ in range(300):
        interval = classify_latency(rng.standard_normal(400), arm).interval
        covered += interval.low <= 0.5 <= interval.high
    assert 0.88 <= covered / 300 <= 0.995


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (([1.0] * 8, ["a"] * 8), "at least two arms"),
        (([1.0] * 7, ["a"] * 4 + ["b"] * 3), "four draws each"),
        (([1.0] * 8, ["a"] * 4 + ["b"] * 3), "8 latencies, 7 arms"),
    ],
)
def test_bad_input_is_named(columns: tuple[object, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        classify_latency(*columns)
