# SPDX-License-Identifier: Apache-2.0
"""The three ways to a residual token against the residual distribution in fractions."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from qr_sampler_tsd import HeadTailLaw, RecordedUniforms, Role, SeededUniforms, UniformDraw
from qr_sampler_tsd.residual import (
    residual_by_thinning,
    residual_masses,
    residual_token,
    token_at,
)

LARGEST_U = 1 - 2.0**-53
Pair = tuple[np.ndarray, HeadTailLaw]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """A target with zeros and a proposal over the same few tokens."""
    size = draw(st.integers(2, 12))
    counts = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    assume(sum(counts))
    ids = draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=size, unique=True))
    logs = draw(st.lists(st.floats(-4, 4), min_size=len(ids), max_size=len(ids)))
    law = HeadTailLaw(ids, logs, draw(st.one_of(st.just(-np.inf), st.floats(-4, 1))), size)
    return np.array(counts) / sum(counts), law


def exact_residual(p: np.ndarray, law: HeadTailLaw, weight: float = 1.0) -> list[Fraction]:
    differences = [
        Fraction(weight) * Fraction(float(one)) - Fraction(law.prob_of(token))
        for token, one in enumerate(p)
    ]
    return [max(difference, Fraction(0)) for difference in differences]


@given(pairs(), st.floats(0.05, 1.0))
def test_masses_are_the_positive_part_of_the_difference(pair: Pair, weight: float) -> None:
    p, law = pair
    buffer = np.full(p.size, np.nan)
    masses = residual_masses(p, law, buffer, weight)
    assert masses is buffer
    due = [float(mass) for mass in exact_residual(p, law, weight)]
    np.testing.assert_allclose(masses, due, atol=1e-15)


@given(pairs(), st.floats(0.2, 1.0))
def test_the_inverse_distribution_function_of_the_residual(pair: Pair, weight: float) -> None:
    p, law = pair
    masses = exact_residual(p, law, weight)
    total = sum(masses)
    assume(total > Fraction(1, 10**6))
    buffer = np.empty(p.size)
    below = Fraction(0)
    for token, mass in enumerate(masses):
        if mass > total / 10**6:
            for place in (Fraction(1, 1000), Fraction(1, 2), Fraction(999, 1000)):
                u = float((below + mass * place) / total)
                assert residual_token(p, law, u, buffer, weight) == token
        below += mass
    for u in (0.0, 2.0**-53, LARGEST_U):
        assert masses[residual_token(p, law, u, buffer, weight)] > 0


def test_a_residual_that_rounding_has_emptied_falls_back_to_the_target() -> None:
    p = np.array([0.25, 0.0, 0.75])
    law = HeadTailLaw([0, 2], np.log([0.25, 0.75]), -np.inf, 3)
    buffer = np.empty(3)
    residual_masses(p, law, buffer)
    p_of_law = law.probs()
    assert residual_token(p_of_law, law, 0.0, buffer) == 0
    assert residual_token(p_of_law, law, LARGEST_U, buffer) == 2


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0**-52, 1e-300, 3.0]), min_size=1, max_size=12),
    st.floats(0, LARGEST_U),
)
def test_a_token_without_mass_is_never_chosen(masses: list[float], u: float) -> None:
    assume(sum(masses) > 0)
    for number in (0.0, u, LARGEST_U):
        assert masses[token_at(np.array(masses), number)] > 0


def test_masses_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="all 0"):
        token_at(np.zeros(3), 0.5)


@pytest.mark.heavy
@given(pairs(), st.integers(0, 2**32))
def test_thinning_keeps_the_first_candidate_that_stands(pair: Pair, seed: int) -> None:
    """The rule in plain Python: y from p, kept where keep p(y) >= q(y)."""
    p, law = pair
    assume(np.maximum(p - law.probs(), 0).sum() > 0.05)
    uniforms = np.random.default_rng(seed).random(4_000).tolist()
    draws = [
        UniformDraw(Role.RESIDUAL, np.array(uniforms[i : i + 2]), None) for i in range(0, 4_000, 2)
    ]
    recorded = RecordedUniforms(draws)
    token = residual_by_thinning(p, np.cumsum(p), law, recorded)
    for u, keep in zip(uniforms[::2], uniforms[1::2], strict=True):
        candidate = next(i for i in range(p.size) if u * p.sum() < np.cumsum(p)[i])
        if keep * p[candidate] >= law.prob_of(candidate):
            break
    assert token == candidate
    assert exact_residual(p, law)[token] > 0


def test_all_routes_draw_from_the_residual() -> None:
    """Chi-square on 20,000 draws each, false alarm 1e-9 per route; r uniform would fail."""
    p = np.array([0.4, 0.3, 0.0, 0.2, 0.1])
    law = HeadTailLaw([0, 4], np.log([0.2, 0.5]), np.log(0.1), 5)
    r = np.array([float(mass) for mass in exact_residual(p, law)])
    r /= r.sum()
    uniforms, buffer, cumulative = SeededUniforms(3), np.empty(5), np.cumsum(p)
    accepts = uniforms.draw(200_000, Role.ACCEPT)
    candidates = law.select(uniforms.draw(200_000, Role.PROPOSAL))
    alpha = np.minimum(1, p[candidates] / law.probs_of(candidates))
    # What is left of the accept uniform of a rejection is uniform again.
    leftover = ((accepts - alpha) / (1 - alpha + (alpha == 1)))[accepts >= alpha][:20_000]
    routes = {
        "in place": [
            residual_token(p, law, u, buffer) for u in uniforms.draw(20_000, Role.RESIDUAL)
        ],
        "thinning": [residual_by_thinning(p, cumulative, law, uniforms) for _ in range(20_000)],
        "leftover": [residual_token(p, law, u, buffer) for u in leftover],
    }
    support = r > 0
    for name, tokens in routes.items():
        counts = np.bincount(tokens, minlength=5)
        assert counts[~support].sum() == 0
        assert stats.chisquare(counts[support], 20_000 * r[support]).pvalue > 1e-9, name
        uniform = np.full(support.sum(), 20_000 / support.sum())
        assert stats.chisquare(counts[support], uniform).pvalue < 1e-9, name


def test_nothing_of_the_size_of_the_vocabulary_is_allocated() -> None:
    vocab_size = 1_000_000
    p = np.full(vocab_size, 1 / vocab_size)
    law = HeadTailLaw([5, 9], [0.0, 0.0], -14.0, vocab_size)
    buffer = np.empty(vocab_size)
    residual_token(p, law, 0.5, buffer)
    tracemalloc.start()
    residual_token(p, law, 0.5, buffer)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # V booleans would be a million bytes already.
    assert peak < 100_000
