# SPDX-License-Identifier: Apache-2.0
"""A block of L drafts, judged as a whole: block verification.

Sun et al. 2025 (arXiv 2403.10444, algorithm 2). With x_1 .. x_L the drafts,

    P_0 = 1, P_i = min(P_(i-1) p_i(x_i) / q_i(x_i), 1),
    R_i = sum over x of max(P_i p_(i+1)(x) - q_(i+1)(x), 0),
    h_i = R_i / (R_i + 1 - P_i) for 0 < i < L, h_L = P_L,

the longest prefix i whose own event of probability h_i occurs is accepted, or the empty one. The
next token comes from max(P_i p_(i+1) - q_(i+1), 0), or after all L from p_(L+1). The text follows
the target, on average at least as many drafts are accepted as token by token, and for L = 1 it is
the same rule.

Uniforms: prefixes are tried from the longest down, each with at most one of :attr:`Role.ACCEPT`,
none where h_i is 0 or 1, so at most L; then one of :attr:`Role.RESIDUAL` or of :attr:`Role.BONUS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.law import Law
from qr_sampler_tsd.residual import residual_masses, residual_token
from qr_sampler_tsd.uniforms import Role, UniformSource
from qr_sampler_tsd.verification.arguments import (
    check_block,
    check_buffer,
    check_draft,
    check_rows,
)
from qr_sampler_tsd.verification.verdict import (
    Judgement,
    Rows,
    Verdict,
    capped_ratio,
    is_accepted,
    token_of,
)

__all__ = ["joint_ratios", "judge_block", "verify_block"]


def verify_block(
    p: Rows,
    q: Sequence[Law],
    drafts: Sequence[int],
    uniforms: UniformSource,
    buffer: FloatArray,
) -> Verdict:
    """Returns the accepted drafts and one more token, which together follow the target.

    Takes O(V + K) for the token, for each row and for each prefix that is tried below the whole
    block.

    Args:
        p: Shape ``(L + 1, V)``, each row of sum 1: row i is the target after i drafts.
        q: L distributions; distribution i is the one that draft i was drawn from.
        drafts: L tokens.
        uniforms: Where randomness comes from.
        buffer: Shape ``(V,)``, overwritten.

    Raises:
        VerificationError: When the lengths do not fit together, a row is no distribution, a draft
            is outside the vocabulary, or vocabularies differ.
    """
    check_block(len(p), len(q), len(drafts))
    check_rows(p, q)
    check_buffer(buffer, p[0].size)
    for token in drafts:
        check_draft(token, p[0].size)
    targets = [float(row[token]) for row, token in zip(p, drafts, strict=False)]
    proposals = [law.prob_of(token) for law, token in zip(q, drafts, strict=True)]

    def rest(place: int, weight: float) -> float:
        return float(residual_masses(p[place], q[place], buffer, weight).sum())

    accepted, chance, weight = judge_block(targets, proposals, rest, uniforms)
    if accepted == len(drafts):
        last = token_of(p[accepted], uniforms, buffer)
    else:
        u = uniforms.draw_one(Role.RESIDUAL)
        last = residual_token(p[accepted], q[accepted], u, buffer, weight)
    return Verdict((*drafts[:accepted], last), accepted, chance)


def judge_block(
    targets: Sequence[float],
    proposals: Sequence[float],
    rest: Callable[[int, float], float],
    uniforms: UniformSource,
) -> Judgement:
    """Returns how many drafts of a block are accepted, from their probabilities alone.

    The next token is left to the caller: from ``max(c p - q, 0)`` of the first rejected draft, c
    being the weight of the judgement, or from the target after all of them.

    Args:
        targets: The probability of each of the L drafts under the target after those before it.
        proposals: Its probability under the distribution that it was drawn from.
        rest: Returns R_i, the sum of max(c p - q, 0) over all tokens, for a place i in [1, L) and a
            weight c, which is the one of :func:`joint_ratios`.
        uniforms: Where randomness comes from.
    """
    joint = joint_ratios(targets, proposals)
    accepted = len(targets)
    chance = joint[accepted]
    while not is_accepted(chance, uniforms):
        accepted -= 1
        chance = _chance(rest(accepted, joint[accepted]), joint[accepted]) if accepted else 1.0
    return Judgement(accepted, chance, joint[accepted])


def joint_ratios(targets: Sequence[float], proposals: Sequence[float]) -> list[float]:
    """Returns P_0 .. P_L; arguments as in :func:`judge_block`."""
    joint = [1.0]
    for target, proposal in zip(targets, proposals, strict=True):
        joint.append(capped_ratio(joint[-1] * target, proposal))
    return joint


def _chance(rest: float, weight: float) -> float:
    """Returns h_i from R_i and P_i."""
    slack = 1.0 - weight
    # Both are 0 only where p = q and P = 1; then a longer prefix is accepted for certain.
    return rest / (rest + slack) if rest + slack > 0 else 1.0
