# SPDX-License-Identifier: Apache-2.0
"""Evaluation of proposers against sums over everything that can happen."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler_tsd import HeadTailLaw, craft_relative_psi
from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers import BigramProposer, OracleProposer
from qr_sampler_tsd.train import Evaluation, evaluate, overlap_mass

V = 3
P = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.05, 0.9, 0.05]])
UNIGRAM = craft_relative_psi([0.5, 0.3, 0.2], 2)
PROPOSER = BigramProposer.from_payloads(
    UNIGRAM, {0: craft_relative_psi([0.3, 0.6, 0.1], 2), 2: craft_relative_psi([0.2, 0.2, 0.6], 1)}
)
Q = np.array([PROPOSER.psi(token).law().probs() for token in range(V)])


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 12), excluded=st.sets(st.integers(0, 11)))
def test_overlap_is_the_sum_over_all_tokens(seed: int, k: int, excluded: set[int]) -> None:
    rng = np.random.default_rng(seed)
    p, ids = rng.dirichlet(np.full(12, 0.5)), rng.permutation(12)[:k]
    barred = sorted(excluded)[:10]
    law = HeadTailLaw(ids, rng.normal(size=k), -1.0, 12, excluded=barred)
    assert overlap_mass(p, law) == pytest.approx(np.minimum(p, law.probs()).sum(), abs=1e-13)


def test_places_are_evaluated_one_by_one() -> None:
    tokens = [0, 2, 1, 1]
    found = evaluate(PROPOSER, tokens, P[tokens])
    assert found.overlaps == pytest.approx(np.minimum(P, Q).sum(axis=1)[tokens])
    gaps = (P * np.log(P / Q)).sum(axis=1)
    assert found.gaps_nats == pytest.approx(gaps[tokens])
    ratios = [Q[a, b] / P[a, b] for a, b in itertools.pairwise(tokens)]
    assert found.ratios == pytest.approx(ratios)
    assert found.acceptance == pytest.approx(np.minimum(P, Q).sum(axis=1)[tokens].mean())
    assert found.gap_nats == pytest.approx(gaps[tokens].mean())


def test_earlier_tokens_are_context_only() -> None:
    oracle = OracleProposer(lambda tokens: P[tokens[0]], V, 1)
    assert evaluate(oracle, [2, 1], P[[2, 1]], before=[0]).overlaps == pytest.approx(
        [np.minimum(P[row], craft_relative_psi(P[0], 1).law().probs()).sum() for row in (2, 1)]
    )


def test_an_oracle_with_room_accepts_everything() -> None:
    oracle = OracleProposer(lambda tokens: P[tokens[-1]], V, V, context_tokens=1)
    found = evaluate(oracle, [0, 1, 2], P)
    assert found.acceptance > 0.99
    assert found.tokens_per_pass(2, joint=False) > 2.95


def drafts_that_stand(length: int, *, joint: bool) -> float:
    """Expected number of accepted drafts after token 0, summed over all drafts from Q.

    Token rule: the first rejection ends it. Block rule: h_i of Sun et al. 2025 (arXiv 2403.10444,
    algorithm 2); the longest prefix whose event of probability h_i occurs is accepted.
    """
    expected = 0.0
    for drafts in itertools.product(range(V), repeat=length):
        path = (0, *drafts)
        probability = math.prod(Q[a, b] for a, b in itertools.pairwise(path))
        chances, scale = [], 1.0
        for place, (a, b) in enumerate(itertools.pairwise(path), start=1):
            ratio = P[a, b] / Q[a, b]
            if not joint:
                chances.append(min(1.0, ratio))
                continue
            scale = min(scale * ratio, 1.0)
            left = np.maximum(scale * P[b] - Q[b], 0).sum()
            chances.append(scale if place == length else left / (left + 1 - scale))
        if joint:
            stand, beyond = 0.0, 1.0
            for place in range(length, 0, -1):
                stand += place * chances[place - 1] * beyond
                beyond *= 1 - chances[place - 1]
        else:
            stand = sum(math.prod(chances[:place]) for place in range(1, length + 1))
        expected += probability * stand
    return expected


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_tokens_per_pass_is_the_sum_over_all_texts(length: int, joint: bool) -> None:
    total = 0.0
    for text in itertools.product(range(V), repeat=length):
        path = (0, *text)
        probability = math.prod(P[a, b] for a, b in itertools.pairwise(path))
        tokens = evaluate(PROPOSER, path, P[list(path)]).tokens_per_pass(length, joint=joint)
        total += probability * tokens
    assert total == pytest.approx(1 + drafts_that_stand(length, joint=joint), abs=1e-12)


def test_block_verification_expects_more() -> None:
    text = np.random.default_rng(1)
    tokens = [0]
    for _ in range(300):
        tokens.append(int(text.choice(V, p=P[tokens[-1]])))
    found = evaluate(PROPOSER, tokens, P[tokens])
    for length in (2, 3, 4):
        by_token = found.tokens_per_pass(length, joint=False)
        assert by_token < found.tokens_per_pass(length, joint=True) < length + 1
    by_one = [found.tokens_per_pass(1, joint=joint) for joint in (False, True)]
    assert by_one[0] == pytest.approx(by_one[1])


def test_all_places_of_a_text_are_starts() -> None:
    found = Evaluation(
        overlaps=np.ones(4), gaps_nats=np.zeros(4), ratios=np.array([0.5, 2.0, 0.25])
    )
    assert found.tokens_per_pass(2, joint=False) == pytest.approx(1 + (0.5 + 0.5 + 1 + 0.25) / 2)
    assert found.tokens_per_pass(2, joint=True) == pytest.approx(1 + (0.5 + 0.5 + 1 + 0.5) / 2)
    assert found.tokens_per_pass(3, joint=False) == pytest.approx(1 + 0.5 + 0.5 + 0.125)


def test_parts_are_joined() -> None:
    tokens = [0, 2, 1]
    part = evaluate(PROPOSER, tokens, P[tokens])
    both = Evaluation.joined([part, part])
    assert (both.overlaps.size, both.gaps_nats.size, both.ratios.size) == (6, 6, 4)
    assert both.acceptance == pytest.approx(part.acceptance)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ProposerError, match=r"\(1, 3\)"):
        evaluate(PROPOSER, [0, 1], P[:1])
    with pytest.raises(ProposerError, match="0 tokens"):
        evaluate(PROPOSER, [], P[:0])
    with pytest.raises(ProposerError, match="token 1 at place 1"):
        evaluate(PROPOSER, [0, 1], np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    found = evaluate(PROPOSER, [0, 1], P[:2])
    for length in (-1, 3):
        with pytest.raises(ProposerError, match=r"1 ratios are too few for drafts of (-1|3)"):
            found.tokens_per_pass(length, joint=False)


def test_a_proposal_that_misses_mass_has_an_infinite_gap() -> None:
    sure: FloatArray = np.array([1.0, 0.0, 0.0])
    proposer = BigramProposer.from_payloads(craft_relative_psi(sure, 1), {})
    assert evaluate(proposer, [0], P[:1]).gap_nats == np.inf
