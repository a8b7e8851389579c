# SPDX-License-Identifier: Apache-2.0
"""Accept or correct one draft, L = 1; docs/tsd/verification.md derives it.

The draft x ~ q is accepted with probability alpha = min(1, p(x) / q(x)); otherwise the token comes
from r ~ max(p - q, 0). Then q min(1, p / q) + (1 - M) r = min(p, q) + (p - min(p, q)) = p, with M =
sum min(p, q) the probability that a draft is accepted (Leviathan et al. 2023, arXiv 2211.17192,
appendix A.1). alpha and r use one and the same q: with two, the result is biased.

Uniforms: at most one of :attr:`Role.ACCEPT`, none when alpha is 0 or 1, and one of
:attr:`Role.RESIDUAL` after a rejection.
"""

from __future__ import annotations

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.law import Law
from qr_sampler_tsd.residual import residual_by_thinning, residual_token
from qr_sampler_tsd.uniforms import Role, UniformSource
from qr_sampler_tsd.verification.arguments import (
    check_buffer,
    check_draft,
    check_proposal,
    check_running_sum,
    check_target,
)
from qr_sampler_tsd.verification.verdict import Verdict, acceptance, is_accepted

__all__ = ["accept_correct", "accept_correct_by_thinning"]


def accept_correct(
    p: FloatArray, q: Law, token: int, uniforms: UniformSource, buffer: FloatArray
) -> Verdict:
    """Returns *token*, or a correction, such that the result follows *p*. O(V + K).

    Args:
        p: Shape ``(V,)``, sum 1: the target.
        q: The distribution that *token* was drawn from.
        token: The draft.
        uniforms: Where randomness comes from.
        buffer: Shape ``(V,)``, overwritten after a rejection.

    Raises:
        VerificationError: When *p* is no distribution, *token* is outside the vocabulary, or
            vocabularies differ.

    Examples:
        >>> import numpy as np
        >>> from qr_sampler_tsd import HeadTailLaw, SeededUniforms
        >>> p = np.array([0.1, 0.2, 0.7])
        >>> q = HeadTailLaw([0], [0.0], -np.inf, vocab_size=3)
        >>> verdict = accept_correct(p, q, 0, SeededUniforms(5), np.empty(3))
        >>> verdict.tokens, verdict.accepted, round(verdict.acceptance, 3)
        ((2,), 0, 0.1)
    """
    check_target(p)
    check_buffer(buffer, p.size)
    alpha = _checked_acceptance(p, q, token)
    if is_accepted(alpha, uniforms):
        return Verdict((token,), 1, alpha)
    u = uniforms.draw_one(Role.RESIDUAL)
    return Verdict((residual_token(p, q, u, buffer),), 0, alpha)


def accept_correct_by_thinning(
    p: FloatArray, cumulative: FloatArray, q: Law, token: int, uniforms: UniformSource
) -> Verdict:
    """Returns the same in distribution as :func:`accept_correct`, for a *p* that is reused.

    A correction takes O(log V) per candidate and 1 / (1 - M) candidates on average, each with two
    uniforms of :attr:`Role.RESIDUAL`. A rejection has probability 1 - M, so one candidate per draft
    is the average over all drafts.

    Args:
        p: Shape ``(V,)``, sum 1: the target.
        cumulative: Shape ``(V,)``: its running sum.
        q: The distribution that *token* was drawn from.
        token: The draft.
        uniforms: Where randomness comes from.

    Raises:
        VerificationError: When *p* is no distribution, *token* is outside the vocabulary, or
            vocabularies differ.
    """
    check_running_sum(p, cumulative)
    alpha = _checked_acceptance(p, q, token)
    if is_accepted(alpha, uniforms):
        return Verdict((token,), 1, alpha)
    return Verdict((residual_by_thinning(p, cumulative, q, uniforms),), 0, alpha)


def _checked_acceptance(p: FloatArray, q: Law, token: int) -> float:
    check_proposal(p, q)
    check_draft(token, p.size)
    return acceptance(p, q, token)
