# SPDX-License-Identifier: Apache-2.0
"""Verifiers at the vocabulary of a real model: chi-square tests that would find a wrong residual.

Seeds are fixed. With other seeds each test would blame a correct verifier once in 10**9 runs; that
it finds the wrong verifiers below is the evidence of its power.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import chisquare

from qr_sampler_tsd import HeadTailLaw, Role, SeededUniforms, craft_relative_psi
from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.residual import token_at
from qr_sampler_tsd.verification import (
    accept_correct,
    accept_correct_by_thinning,
    verify_block,
    verify_k_seq,
    verify_tokens,
    verify_tokens_by_thinning,
)
from qr_sampler_tsd.verification.multi_draft import optimal_division

pytestmark = pytest.mark.heavy

FALSE_ALARMS = 1e-9
VOCABULARY = 50_257
HEAD_CELLS = 40
TAIL_CELLS = 20


def zipf(seed: int) -> FloatArray:
    masses = 1.0 / np.arange(1, VOCABULARY + 1) ** 1.1
    return np.random.default_rng(seed).permutation(masses / masses.sum())


P = zipf(1)
CUMULATIVE = np.cumsum(P)
# A proposal that is wrong everywhere: another temperature, and a head that misses tokens.
Q = craft_relative_psi(np.roll(P, 1) * 0.4 + P * 0.6, k=64, tau=1.3).law()
# A proposal that takes the five best tokens for the next thirty-five, so that few blocks are
# accepted.
_ORDER = np.argsort(-P, kind="stable")
_SHUFFLED = P.copy()
_SHUFFLED[_ORDER[:HEAD_CELLS]] = P[np.roll(_ORDER[:HEAD_CELLS], 5)]
POOR = craft_relative_psi(_SHUFFLED, k=64).law()
BUFFER = np.empty(VOCABULARY)


def cells() -> tuple[TokenArray, FloatArray]:
    """Returns the cell of every token, the best ones by themselves, and the mass of every cell."""
    order = np.argsort(-P, kind="stable")
    cell = np.empty(VOCABULARY, dtype=np.int64)
    cell[order[:HEAD_CELLS]] = np.arange(HEAD_CELLS)
    rest = np.sort(order[HEAD_CELLS:])
    cell[rest] = HEAD_CELLS + np.arange(rest.size) * TAIL_CELLS // rest.size
    return cell, np.bincount(cell, weights=P)


CELL, CELL_MASSES = cells()


def p_value(tokens: Sequence[int]) -> float:
    counts = np.bincount(CELL[list(tokens)], minlength=CELL_MASSES.size)
    return float(chisquare(counts, CELL_MASSES / CELL_MASSES.sum() * len(tokens)).pvalue)


Step = Callable[[int, SeededUniforms], int]


def right(draft: int, uniforms: SeededUniforms) -> int:
    return accept_correct(P, Q, draft, uniforms, BUFFER).token


def thinned(draft: int, uniforms: SeededUniforms) -> int:
    return accept_correct_by_thinning(P, CUMULATIVE, Q, draft, uniforms).token


def swapped(draft: int, uniforms: SeededUniforms) -> int:
    """Corrects from max(q - p, 0)."""
    if uniforms.draw_one(Role.ACCEPT) < P[draft] / Q.prob_of(draft):
        return draft
    return token_at(np.maximum(Q.probs() - P, 0), uniforms.draw_one(Role.RESIDUAL))


def uncorrected(draft: int, uniforms: SeededUniforms) -> int:
    """Corrects from p."""
    if uniforms.draw_one(Role.ACCEPT) < P[draft] / Q.prob_of(draft):
        return draft
    return token_at(P.copy(), uniforms.draw_one(Role.RESIDUAL))


def emitted(step: Step, count: int) -> list[int]:
    uniforms = SeededUniforms(seed=5)
    drafts = Q.select(uniforms.draw(count, Role.PROPOSAL)).tolist()
    return [step(draft, uniforms) for draft in drafts]


@pytest.mark.parametrize("step", [right, thinned])
def test_one_draft_follows_the_target(step: Step) -> None:
    assert p_value(emitted(step, 12_000)) > FALSE_ALARMS


@pytest.mark.parametrize("step", [swapped, uncorrected])
def test_wrong_corrections_are_found(step: Step) -> None:
    assert p_value(emitted(step, 4_000)) < FALSE_ALARMS


def fours(uniforms: SeededUniforms) -> list[list[int]]:
    drafts: list[list[int]] = Q.select(uniforms.draw(40_000, Role.PROPOSAL)).reshape(-1, 4).tolist()
    return drafts


def test_several_drafts_follow_the_target() -> None:
    uniforms = SeededUniforms(seed=6)
    rho = optimal_division(P, Q, 4, BUFFER)
    tokens = [verify_k_seq(P, Q, d, uniforms, BUFFER, rho).token for d in fours(uniforms)]
    assert p_value(tokens) > FALSE_ALARMS


def test_division_that_is_too_small_is_found() -> None:
    uniforms = SeededUniforms(seed=6)
    # rho = 1 is right for one draft only.
    tokens = [verify_k_seq(P, Q, d, uniforms, BUFFER, 1.0).token for d in fours(uniforms)]
    assert p_value(tokens) < FALSE_ALARMS


def by_token(
    rows: FloatArray, laws: list[HeadTailLaw], drafts: list[int], uniforms: SeededUniforms
) -> tuple[int, ...]:
    return verify_tokens(rows, laws, drafts, uniforms, BUFFER).tokens


def by_thinning(
    rows: FloatArray, laws: list[HeadTailLaw], drafts: list[int], uniforms: SeededUniforms
) -> tuple[int, ...]:
    sums = [CUMULATIVE] * len(rows)
    return verify_tokens_by_thinning(rows, sums, laws, drafts, uniforms).tokens


def as_a_whole(
    rows: FloatArray, laws: list[HeadTailLaw], drafts: list[int], uniforms: SeededUniforms
) -> tuple[int, ...]:
    return verify_block(rows, laws, drafts, uniforms, BUFFER).tokens


def joint_ratio_alone(
    rows: FloatArray, laws: list[HeadTailLaw], drafts: list[int], uniforms: SeededUniforms
) -> tuple[int, ...]:
    """Accepts prefix i with probability P_i, a common misreading of h_i."""
    joint = [1.0]
    for draft in drafts:
        joint.append(min(1.0, joint[-1] * P[draft] / POOR.prob_of(draft)))
    accepted = 3
    while accepted and uniforms.draw_one(Role.ACCEPT) >= joint[accepted]:
        accepted -= 1
    if accepted == 3:
        return (*drafts, token_at(P.copy(), uniforms.draw_one(Role.BONUS)))
    masses = np.maximum(joint[accepted] * P - POOR.probs(), 0)
    return (*drafts[:accepted], token_at(masses, uniforms.draw_one(Role.RESIDUAL)))


def pair_p_value(verify: Callable[..., tuple[int, ...]], passes: int) -> float:
    """Tests the joint distribution of the first two tokens, in 6 x 6 cells of the same target."""
    cell = np.searchsorted([1, 4, 12, HEAD_CELLS, HEAD_CELLS + 10], CELL, side="right")
    masses = np.bincount(cell, weights=P)
    uniforms = SeededUniforms(seed=8)
    counts = np.zeros((masses.size, masses.size))
    for drafts in POOR.select(uniforms.draw(3 * passes, Role.PROPOSAL)).reshape(-1, 3).tolist():
        tokens = verify([P] * 4, [POOR] * 3, drafts, uniforms)
        while len(tokens) < 2:
            tokens = (*tokens, token_at(P.copy(), uniforms.draw_one(Role.BONUS)))
        counts[cell[tokens[0]], cell[tokens[1]]] += 1
    expected = np.outer(masses, masses) * passes
    assert expected.min() > 5
    return float(chisquare(counts, expected / expected.sum() * passes, axis=None).pvalue)


@pytest.mark.parametrize("verify", [by_token, by_thinning, as_a_whole])
def test_blocks_follow_the_target(verify: Callable[..., tuple[int, ...]]) -> None:
    assert pair_p_value(verify, 4_000) > FALSE_ALARMS


def test_a_wrong_block_rule_is_found() -> None:
    assert pair_p_value(joint_ratio_alone, 4_000) < FALSE_ALARMS
