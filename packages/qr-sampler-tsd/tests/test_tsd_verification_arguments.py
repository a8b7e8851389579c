# SPDX-License-Identifier: Apache-2.0
"""Verifiers refuse what no rule is exact for, before they draw anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qr_sampler_tsd import HeadTailLaw, SeededUniforms
from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import VerificationError
from qr_sampler_tsd.residual import token_at
from qr_sampler_tsd.verification import (
    accept_correct,
    accept_correct_by_thinning,
    k_seq_acceptance,
    optimal_division,
    verify_block,
    verify_k_seq,
    verify_tokens,
    verify_tokens_by_thinning,
)

P = np.array([0.5, 0.25, 0.125, 0.125])
LAW = HeadTailLaw([0, 1], [0.0, -1.0], -2.0, vocab_size=4)
OTHER = HeadTailLaw([0, 1], [0.0, -1.0], -2.0, vocab_size=5)

Call = Callable[[FloatArray, HeadTailLaw, int, SeededUniforms], Any]

VERIFIERS: dict[str, Call] = {
    "accept_correct": lambda p, q, token, u: accept_correct(p, q, token, u, np.empty(p.size)),
    "verify_tokens": lambda p, q, token, u: verify_tokens(
        [p, P], [q], [token], u, np.empty(p.size)
    ),
    "verify_block": lambda p, q, token, u: verify_block([p, P], [q], [token], u, np.empty(p.size)),
    "verify_k_seq": lambda p, q, token, u: verify_k_seq(p, q, [token] * 2, u, np.empty(p.size)),
    "verify_k_seq, rho given": lambda p, q, token, u: verify_k_seq(
        p, q, [token] * 2, u, np.empty(p.size), 1.5
    ),
    "by thinning": lambda p, q, token, u: accept_correct_by_thinning(p, np.cumsum(p), q, token, u),
    "tokens by thinning": lambda p, q, token, u: verify_tokens_by_thinning(
        [p, P], [np.cumsum(p), np.cumsum(P)], [q], [token], u
    ),
}
DENSE = {name: call for name, call in VERIFIERS.items() if "thinning" not in name}


def refused(
    call: Call, words: str, p: FloatArray = P, q: HeadTailLaw = LAW, token: int = 1
) -> None:
    uniforms = SeededUniforms(1)
    with pytest.raises(VerificationError, match=words):
        call(p, q, token, uniforms)
    assert not uniforms.drawn


@pytest.mark.parametrize("name", VERIFIERS)
def test_what_is_valid_is_judged(name: str) -> None:
    assert VERIFIERS[name](P, LAW, 1, SeededUniforms(1)).tokens


@pytest.mark.parametrize("token", [-1, 4, 10**9])
@pytest.mark.parametrize("name", VERIFIERS)
def test_drafts_are_tokens_of_the_vocabulary(name: str, token: int) -> None:
    refused(VERIFIERS[name], rf"the draft {token} is outside \[0, 4\)", token=token)


@pytest.mark.parametrize("factor", [0.5, 1 + 2e-6, np.inf, np.nan])
@pytest.mark.parametrize("name", VERIFIERS)
def test_targets_have_the_sum_1(name: str, factor: float) -> None:
    refused(VERIFIERS[name], "not 1|holds nan|holds inf", p=P * factor)


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_softmax_in_float32_is_near_enough(name: str) -> None:
    assert VERIFIERS[name](P * (1 + 5e-7), LAW, 1, SeededUniforms(1)).tokens


@pytest.mark.parametrize("name", DENSE)
def test_targets_are_not_negative(name: str) -> None:
    refused(DENSE[name], "holds -0.25", p=np.array([0.75, -0.25, 0.25, 0.25]))


@pytest.mark.parametrize("name", VERIFIERS)
def test_vocabularies_are_the_same(name: str) -> None:
    refused(VERIFIERS[name], "a vocabulary of 5 tokens and the target of 4", q=OTHER)


def test_all_rows_of_a_block_are_looked_at() -> None:
    for verify in (verify_tokens, verify_block):
        with pytest.raises(VerificationError, match=r"the sum 0\.5"):
            verify([P, P, P / 2], [LAW, LAW], [0, 1], SeededUniforms(1), np.empty(4))
        with pytest.raises(VerificationError, match="a vocabulary of 5"):
            verify([P, P, P], [LAW, OTHER], [0, 1], SeededUniforms(1), np.empty(4))


@pytest.mark.parametrize("buffer", [np.empty(3), np.empty(4, np.float32), np.empty((1, 4))])
def test_buffers_hold_masses(buffer: FloatArray) -> None:
    with pytest.raises(VerificationError, match=r"float64 of shape \(4,\)"):
        accept_correct(P, LAW, 1, SeededUniforms(1), buffer)


def test_divisions_and_acceptances_of_alternatives_check_alike() -> None:
    for call in (optimal_division, k_seq_acceptance):
        with pytest.raises(VerificationError, match="not 1"):
            call(P / 2, LAW, 2, np.empty(4))


def test_running_sums_belong_to_their_target() -> None:
    with pytest.raises(VerificationError, match=r"the shape \(3,\)"):
        accept_correct_by_thinning(P, np.cumsum(P)[:3], LAW, 1, SeededUniforms(1))


@pytest.mark.parametrize(
    ("masses", "words"), [([0.0, 0.0], "are all 0"), ([np.nan, 1], "hold NaN")]
)
def test_masses_that_choose_nothing_are_named(masses: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        token_at(np.array(masses), 0.5)
