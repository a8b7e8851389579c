# SPDX-License-Identifier: Apache-2.0
"""A block of L drafts, judged token by token, and a bonus token when all are accepted.

Leviathan et al. 2023 (arXiv 2211.17192, algorithm 1) and Chen et al. 2023 (arXiv 2302.01318): the
rule for one draft is applied from left to right until one is rejected. When drafts are accepted
independently with probability a, a pass of the target emits (1 - a^(L + 1)) / (1 - a) tokens on
average.

Uniforms: at most one of :attr:`Role.ACCEPT` per draft that is looked at, none where alpha is 0 or
1, then one of :attr:`Role.RESIDUAL` or of :attr:`Role.BONUS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.law import Law
from qr_sampler_tsd.residual import residual_by_thinning, residual_token
from qr_sampler_tsd.uniforms import Role, UniformSource
from qr_sampler_tsd.verification.arguments import (
    check_block,
    check_buffer,
    check_draft,
    check_proposal,
    check_rows,
    check_running_sum,
)
from qr_sampler_tsd.verification.verdict import (
    Judgement,
    Rows,
    Verdict,
    capped_ratio,
    is_accepted,
    token_of,
)

__all__ = ["judge_tokens", "verify_tokens", "verify_tokens_by_thinning"]


def verify_tokens(
    p: Rows,
    q: Sequence[Law],
    drafts: Sequence[int],
    uniforms: UniformSource,
    buffer: FloatArray,
) -> Verdict:
    """Returns the accepted drafts and one more token, which together follow the target.

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
    accepted, alpha, _ = _judged(p, q, drafts, uniforms)
    if accepted == len(drafts):
        last = token_of(p[accepted], uniforms, buffer)
    else:
        u = uniforms.draw_one(Role.RESIDUAL)
        last = residual_token(p[accepted], q[accepted], u, buffer)
    return Verdict((*drafts[:accepted], last), accepted, alpha)


def verify_tokens_by_thinning(
    p: Rows,
    cumulative: Rows,
    q: Sequence[Law],
    drafts: Sequence[int],
    uniforms: UniformSource,
) -> Verdict:
    """Returns the same in distribution as :func:`verify_tokens`, for rows that are reused.

    The last token takes O(log V) per candidate; see
    :func:`~qr_sampler_tsd.verification.accept_correct_by_thinning`.

    Args:
        p: Shape ``(L + 1, V)``, each row of sum 1: row i is the target after i drafts.
        cumulative: Shape ``(L + 1, V)``: the running sum of each row.
        q: L distributions; distribution i is the one that draft i was drawn from.
        drafts: L tokens.
        uniforms: Where randomness comes from.

    Raises:
        VerificationError: When the lengths do not fit together, a row is no distribution, a draft
            is outside the vocabulary, or vocabularies differ.
    """
    check_block(len(p), len(q), len(drafts))
    for row, summed in zip(p, cumulative, strict=True):
        check_running_sum(row, summed)
    for row, law in zip(p, q, strict=False):
        check_proposal(row, law)
    accepted, alpha, _ = _judged(p, q, drafts, uniforms)
    running = cumulative[accepted]
    if accepted == len(drafts):
        height = uniforms.draw_one(Role.BONUS) * float(running[-1])
        last = int(running.searchsorted(height, side="right"))
    else:
        last = residual_by_thinning(p[accepted], running, q[accepted], uniforms)
    return Verdict((*drafts[:accepted], last), accepted, alpha)


def judge_tokens(
    targets: Iterable[float], proposals: Iterable[float], uniforms: UniformSource
) -> Judgement:
    """Returns how many drafts of a block are accepted, from their probabilities alone.

    The next token is left to the caller: from ``max(p - q, 0)`` of the first rejected draft, or
    from the target after all of them.

    Args:
        targets: The probability of each draft under the target after the drafts before it; those
            after a rejected draft are not looked at.
        proposals: Its probability under the distribution that it was drawn from.
        uniforms: Where randomness comes from.
    """
    accepted, alpha = 0, 1.0
    for target, proposal in zip(targets, proposals, strict=True):
        alpha = capped_ratio(target, proposal)
        if not is_accepted(alpha, uniforms):
            break
        accepted += 1
    return Judgement(accepted, alpha, 1.0)


def _judged(p: Rows, q: Sequence[Law], drafts: Sequence[int], uniforms: UniformSource) -> Judgement:
    """Returns what :func:`judge_tokens` says of dense rows."""
    for token in drafts:
        check_draft(token, p[0].size)
    targets = (float(row[token]) for row, token in zip(p, drafts, strict=False))
    proposals = (law.prob_of(token) for law, token in zip(q, drafts, strict=True))
    return judge_tokens(targets, proposals, uniforms)
