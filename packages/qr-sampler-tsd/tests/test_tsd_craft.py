# SPDX-License-Identifier: Apache-2.0
"""Payloads made from a law: the tail keeps its true mass, and quantisation costs what it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qr_sampler_tsd import PsiError, craft_psi, craft_relative_psi

Probs = NDArray[np.float64]


def zipf(vocab_size: int, exponent: float) -> Probs:
    weights = np.arange(1, vocab_size + 1) ** -exponent
    return weights / weights.sum()


def overlap(p: Probs, q: Probs) -> float:
    return float(np.minimum(p, q).sum())


@st.composite
def laws(draw: st.DrawFn) -> Probs:
    size = draw(st.integers(1, 30))
    weights = draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    assume(sum(weights) > 1e-6)
    return np.array(weights) / sum(weights)


@given(laws(), st.integers(1, 30), st.floats(0.3, 3.0))
def test_the_tail_has_its_true_mass_at_any_temperature(p: Probs, k: int, tau: float) -> None:
    k = min(k, p.size)
    head = np.argsort(-p, kind="stable")[:k]
    head = head[p[head] > 0]
    due = 1 - p[head].sum()
    one, two = craft_psi(p, k, tau), craft_relative_psi(p, k, tau)
    assert one.ids.tolist() == two.ids.tolist() == head.tolist()
    # float32: half a unit in the last place of a logarithm below 2**10 is 2**-15.
    assert two.law().tail_mass == pytest.approx(due, rel=1e-4, abs=1e-12)
    if one.epsilon >= 2.0**-14:
        assert one.law().tail_mass == pytest.approx(due, rel=2.0**-10, abs=1e-12)
    else:
        # A subnormal floor is off by 2**-25 at most, and the head weighs at least its best score.
        weight = np.exp(one.scores / one.tau).sum()
        slack = (p.size - head.size) * 2.0**-25 / weight
        assert one.law().tail_mass == pytest.approx(due, abs=slack + 1e-12)


@given(laws(), st.integers(1, 30))
def test_scores_are_off_by_half_a_step(p: Probs, k: int) -> None:
    one, two = craft_psi(p, min(k, p.size)), craft_relative_psi(p, min(k, p.size))
    logs = np.log(p[one.ids])
    assert np.abs(one.scores - logs).max() <= 0.5001 * one.scale + 1e-9
    assert np.abs(two.scores - (logs - logs.max())).max() <= 0.5001 * two.scale + 1e-6


@pytest.mark.parametrize(
    ("tau", "tail", "shared"),
    [
        (0.6, 0.601, 0.574),
        (0.8, 0.360, 0.763),
        (1.0, 0.212, 0.916),
        (1.2, 0.132, 0.835),
        (1.5, 0.074, 0.726),
    ],
)
def test_the_floor_of_temperature_1_is_wrong_at_others(
    tau: float, tail: float, shared: float
) -> None:
    """Zipf 1.2 over 1,000 tokens, K = 64: the tail's true mass is .2115."""
    p = zipf(1_000, 1.2)
    naive = craft_psi(p, 64, tau, epsilon=p[64:].sum() / 936).law()
    assert naive.tail_mass == pytest.approx(tail, abs=2e-3)
    assert overlap(p, naive.probs()) == pytest.approx(shared, abs=4e-3)
    right = craft_psi(p, 64, tau).law()
    assert right.tail_mass == pytest.approx(0.2115, abs=2e-4)
    # Below 1 the right tail also raises the acceptance; above, a light tail happens to suit a head
    # that is too flat.
    if tau < 1:
        assert overlap(p, right.probs()) > overlap(p, naive.probs()) + 0.02


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.35])
def test_version_2_loses_less_to_eight_bits(temperature: float) -> None:
    """The loss of a head of mass h in steps of D is about h D / 8, and D is less than half."""
    logits = np.random.default_rng(5).normal(0.0, 2.5, 50_257)
    p = np.exp((logits - logits.max()) / temperature)
    p /= p.sum()
    one, two = craft_psi(p, 64), craft_relative_psi(p, 64)
    best = p.copy()
    best[np.argsort(-p)[64:]] = p[np.argsort(-p)[64:]].mean()
    exact = overlap(p, best)
    losses = [exact - overlap(p, psi.law().probs()) for psi in (one, two)]
    head = p[one.ids].sum()
    assert -1e-4 < losses[1] < losses[0]
    for psi, loss in zip((one, two), losses, strict=True):
        assert loss < 0.5 * head * psi.scale


def test_one_token_outside_the_head_gets_its_mass() -> None:
    p = np.array([0.5, 0.3, 0.2])
    assert craft_psi(p, 2).law().probs() == pytest.approx(p, rel=0.01)
    assert craft_relative_psi(p, 2).law().probs() == pytest.approx(p, rel=0.01)


def test_a_head_of_all_tokens_has_no_tail() -> None:
    p = np.array([0.1, 0.7, 0.2])
    for psi in (craft_psi(p, 3), craft_relative_psi(p, 3)):
        assert psi.ids.tolist() == [1, 2, 0]
        assert psi.law().tail_mass == 0.0
        assert psi.law().probs() == pytest.approx(p, rel=0.02)


def test_tokens_without_probability_are_left_out_of_the_head() -> None:
    p = np.array([0.0, 0.75, 0.0, 0.25, 0.0])
    for psi in (craft_psi(p, 4), craft_relative_psi(p, 4)):
        assert psi.ids.tolist() == [1, 3]
        assert psi.law().probs() == pytest.approx(p, rel=0.02)


@pytest.mark.parametrize("vocab_size", [1, 2, 50])
def test_a_law_of_one_token(vocab_size: int) -> None:
    p = np.zeros(vocab_size)
    p[-1] = 1.0
    for psi in (craft_psi(p, 1), craft_relative_psi(p, 1), craft_relative_psi(p, vocab_size)):
        assert psi.law().probs().tolist() == p.tolist()


def test_ties_go_by_id() -> None:
    assert craft_psi(np.full(6, 1 / 6), 3).ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([], "shape"),
        ([[0.5, 0.5]], "shape"),
        ([0.5, -0.5, 1.0], "finite probabilities"),
        ([0.5, np.nan], "finite probabilities"),
        ([0.5, np.inf], "finite probabilities"),
        ([1e308, 1e308], "finite probabilities"),
        ([0.0, 0.0], "finite probabilities"),
    ],
)
@pytest.mark.parametrize("craft", [craft_psi, craft_relative_psi])
def test_what_is_no_law_is_refused(craft: Any, p: list[float], message: str) -> None:
    with pytest.raises(PsiError, match=message):
        craft(p, 1)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_an_impossible_k_is_refused(k: int) -> None:
    with pytest.raises(PsiError, match=f"k={k} must be from 1 to the vocabulary size 3"):
        craft_psi([0.5, 0.3, 0.2], k)


def test_masses_far_apart_are_no_trap() -> None:
    assert craft_psi([1e308, 1e-320, 1.0], 3).ids.tolist() == [0, 2]
