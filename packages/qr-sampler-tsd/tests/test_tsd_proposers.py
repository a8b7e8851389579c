# SPDX-License-Identifier: Apache-2.0
"""Proposers: the contract that all keep, and what each kind says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qr_sampler_tsd import Role, SeededUniforms, craft_relative_psi
from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import ProposerError, PsiError
from qr_sampler_tsd.proposers import (
    BigramProposer,
    HeadProposer,
    HeadWeights,
    OracleProposer,
    Proposer,
)
from qr_sampler_tsd.train import overlap_mass
from qr_sampler_tsd.verification import accept_correct

V, K = 40, 6
ROWS = np.random.default_rng(3).dirichlet(np.full(V, 0.2), size=V)


def oracle() -> OracleProposer:
    return OracleProposer(lambda tokens: ROWS[tokens[-1]], V, K, context_tokens=3)


def bigram() -> BigramProposer:
    payloads = {token: craft_relative_psi(ROWS[token], K) for token in range(0, V, 2)}
    return BigramProposer.from_payloads(craft_relative_psi(ROWS.mean(axis=0), K), payloads)


def weights(*, buckets: int = V, context_tokens: int = 3) -> HeadWeights:
    rng = np.random.default_rng(5)
    return HeadWeights(
        tables=rng.normal(size=(context_tokens, buckets + 1, 4)).astype(np.float32),
        hidden_bias=rng.normal(size=4).astype(np.float32),
        output=rng.normal(size=(V, 4)).astype(np.float32),
        output_bias=rng.normal(size=V).astype(np.float32),
    )


def head() -> HeadProposer:
    return HeadProposer(weights(), K)


KINDS = pytest.mark.parametrize("make", [oracle, bigram, head])


@KINDS
def test_states_are_immutable_and_independent(make: Callable[[], Proposer[Any]]) -> None:
    proposer = make()
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    state = proposer.start(tokens[:1])
    visited = [state]
    for token in tokens[1:]:
        state = proposer.advance(state, token)
        visited.append(state)
    # Going back to any state gives what going there afresh gives: drafts can be taken back.
    for length, earlier in enumerate(visited, start=1):
        hash(earlier)
        fresh = proposer.start(tokens[:length])
        assert earlier == fresh
        assert proposer.psi(earlier).to_bytes() == proposer.psi(fresh).to_bytes()


@KINDS
def test_payloads_are_of_the_vocabulary_and_the_size(make: Callable[[], Proposer[Any]]) -> None:
    proposer = make()
    psi = proposer.psi(proposer.start([7]))
    assert proposer.vocab_size == psi.vocab_size == V
    assert psi.ids.size == K
    assert psi.law().probs().sum() == pytest.approx(1, abs=1e-12)


@KINDS
@pytest.mark.parametrize("token", [-1, V, 2**40])
def test_tokens_of_another_vocabulary_are_refused(
    make: Callable[[], Proposer[Any]], token: int
) -> None:
    proposer = make()
    with pytest.raises(ProposerError, match=str(token)):
        proposer.start([1, token])
    with pytest.raises(ProposerError, match=str(token)):
        proposer.advance(proposer.start([1]), token)
    with pytest.raises(ProposerError, match="at least one"):
        proposer.start([])


@KINDS
def test_numpy_tokens_leave_plain_states(make: Callable[[], Proposer[Any]]) -> None:
    proposer = make()
    tokens = np.array([2, 4, 6], dtype=np.int32)
    assert repr(proposer.start(tokens)) == repr(proposer.start([2, 4, 6]))  # type: ignore[arg-type]


def test_only_the_oracle_is_labelled() -> None:
    assert [make().is_oracle for make in (oracle, bigram, head)] == [True, False, False]


def test_acceptance_of_the_oracle_is_the_overlap_mass() -> None:
    """False alarm below 1e-9: 6.1 standard deviations either way.

    It has power: an acceptance that is 0.03 off, as when the head were a token shorter, lies more
    than two such bounds away.
    """
    proposer, draws = oracle(), 40_000
    p, law = ROWS[11], proposer.psi(proposer.start([11])).law()
    overlap = overlap_mass(p, law)
    assert overlap == pytest.approx(np.minimum(p, law.probs()).sum(), abs=1e-14)
    # Exactly: a draft x ~ q is accepted with probability min(1, p / q).
    q = law.probs()
    assert (q * np.minimum(1, p / q)).sum() == pytest.approx(overlap, abs=1e-14)
    uniforms, buffer = SeededUniforms(8), np.empty(V)
    drafts = law.select(uniforms.draw(draws, Role.PROPOSAL))
    accepted = sum(accept_correct(p, law, int(x), uniforms, buffer).accepted for x in drafts)
    bound = 6.1 * math.sqrt(overlap * (1 - overlap) / draws)
    assert bound < 0.03 / 2
    assert abs(accepted / draws - overlap) < bound, (accepted / draws, overlap)


def test_the_oracle_sees_as_much_as_it_is_allowed() -> None:
    seen: list[tuple[int, ...]] = []

    def target(tokens: Any) -> FloatArray:
        seen.append(tuple(tokens))
        return ROWS[0]

    for last in (None, 2):
        proposer = OracleProposer(target, V, K, context_tokens=last)
        proposer.psi(proposer.advance(proposer.start([1, 2, 3]), 4))
    assert seen == [(1, 2, 3, 4), (3, 4)]
    with pytest.raises(ProposerError, match="context_tokens=0"):
        OracleProposer(target, V, K, context_tokens=0)


def test_a_target_of_another_size_is_refused() -> None:
    proposer = OracleProposer(lambda _: np.ones(V + 1), V, K)
    with pytest.raises(ProposerError, match=r"\(41,\)"):
        proposer.psi(proposer.start([1]))


def test_a_bigram_table_falls_back_to_its_unigram() -> None:
    table = bigram()
    unigram = craft_relative_psi(ROWS.mean(axis=0), K)
    for token in range(V):
        expected = unigram if token % 2 else craft_relative_psi(ROWS[token], K)
        assert table.psi(table.start([token])) == expected
    assert np.count_nonzero(table.rows) == V // 2


def test_memory_of_a_full_table_is_the_stated_figure() -> None:
    payloads = {token: craft_relative_psi(ROWS[token], K) for token in range(V)}
    table = BigramProposer.from_payloads(payloads[0], payloads)
    assert table.payloads.nbytes == (V + 1) * (5 * K + 14)
    assert table.size_bytes == (V + 1) * (5 * K + 14) + 8 * (V + 2) + 4 * V


def test_payloads_of_several_sizes_lie_side_by_side() -> None:
    sparse = np.zeros(V)
    sparse[[4, 9]] = 0.5
    table = BigramProposer.from_payloads(
        craft_relative_psi(ROWS[0], K), {1: craft_relative_psi(sparse, K)}
    )
    assert [table.psi(table.start([token])).ids.size for token in (0, 1)] == [K, 2]


def test_malformed_tables_are_refused() -> None:
    table = bigram()
    payloads, offsets, rows = table.payloads, table.offsets, table.rows
    wrong_rows, backwards, short = rows.copy(), offsets.copy(), offsets.copy()
    wrong_rows[3] = 999
    backwards[1:3] = backwards[2:0:-1]
    short[1] += 1
    for arguments, words in (
        ((payloads.astype(np.int64), offsets, rows), "payloads must be"),
        ((payloads, offsets[:0], rows), "offsets must be"),
        ((payloads, offsets[:-1], rows), "run from 0"),
        ((payloads, backwards, rows), "ascend"),
        ((payloads, offsets, wrong_rows), "999"),
        ((payloads, offsets, rows[:-1].copy()), "vocabulary of 40"),
    ):
        with pytest.raises(ProposerError, match=words):
            BigramProposer(*arguments)  # type: ignore[arg-type]
    with pytest.raises(PsiError, match="5 K"):
        BigramProposer(payloads, short, rows)
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0] = 1


def reference_law(given: HeadWeights, tokens: list[int]) -> FloatArray:
    """The head's distribution in plain Python and float64."""
    buckets, width = given.tables.shape[1] - 1, given.tables.shape[2]
    hidden = []
    for unit in range(width):
        total = float(given.hidden_bias[unit])
        for back in range(given.context_tokens):
            row = tokens[-1 - back] % buckets if back < len(tokens) else buckets
            total += float(given.tables[back, row, unit])
        hidden.append(math.tanh(total))
    logits = [
        math.fsum(float(w) * h for w, h in zip(row, hidden, strict=True)) + float(bias)
        for row, bias in zip(given.output, given.output_bias, strict=True)
    ]
    powers = [math.exp(z) for z in logits]
    return np.array(powers) / math.fsum(powers)


@pytest.mark.parametrize("buckets", [V, 7])
@pytest.mark.parametrize("tokens", [[39], [1, 2], [5, 39, 0, 17]])
def test_a_head_says_what_its_formula_says(buckets: int, tokens: list[int]) -> None:
    given = weights(buckets=buckets)
    proposer = HeadProposer(given, V)
    law = proposer.psi(proposer.start(tokens)).law()
    expected = reference_law(given, tokens)
    # 8-bit codes: each logarithm is half a step off, and the total as much.
    step = (np.log(expected).max() - np.log(expected).min()) / 255
    assert np.abs(np.log(law.probs()) - np.log(expected)).max() < 1.01 * step
    short = HeadProposer(given, 5)
    head_law = short.psi(short.start(tokens)).law()
    best = np.argsort(-expected)[:5]
    assert head_law.ids.tolist() == best.tolist()
    assert head_law.tail_mass == pytest.approx(1 - expected[best].sum(), abs=1e-5)


def test_first_weights_stand_for_the_unigram() -> None:
    unigram = ROWS.mean(axis=0)
    first = HeadWeights.initial(unigram, context_tokens=2, width=3, buckets=100, rng=1)
    assert first.tables.shape == (2, V + 1, 3)
    assert first.size_bytes == 4 * (2 * (V + 1) * 3 + 3 + V * 3 + V)
    logits = first.logits(np.array([[1, 2], [3, -1]], np.int32))
    assert np.allclose(logits, np.log(unigram), atol=1e-6)


def test_malformed_heads_are_refused() -> None:
    good = weights()
    fields = {name: getattr(good, name) for name in HeadWeights.__slots__}
    for name, array, words in (
        ("output", np.ones((V, 5), np.float32), "do not fit"),
        ("hidden_bias", np.ones(3, np.float32), "do not fit"),
        ("tables", np.ones((3, 1, 4), np.float32), "do not fit"),
        ("output_bias", np.full(V, np.nan, np.float32), "not finite"),
    ):
        with pytest.raises(ProposerError, match=words):
            HeadWeights(**{**fields, name: array})
    for k in (0, V + 1):
        with pytest.raises(ProposerError, match=f"k={k}"):
            HeadProposer(good, k)
    with pytest.raises(PsiError, match="tau"):
        HeadProposer(good, 1, tau=0)
    with pytest.raises(ProposerError, match="width=0"):
        HeadWeights.initial(ROWS[0], context_tokens=1, width=0, buckets=1, rng=0)
    with pytest.raises(ProposerError, match="every token"):
        HeadWeights.initial(np.zeros(V), context_tokens=1, width=1, buckets=1, rng=0)
