# SPDX-License-Identifier: Apache-2.0
"""k independent drafts of one position, judged in turn: K-SEQ.

Sun et al. 2023 (SpecTr, arXiv 2310.15141, algorithm 2). A draft x ~ q is accepted with probability
min(1, p(x) / (rho q(x))), the first accepted one is emitted. With beta(rho) = sum min(q, p / rho),
one of k is accepted with probability 1 - (1 - beta)^k, and what is emitted so has the mass
min(q, p / rho) (1 - (1 - beta)^k) / beta. The rest of p must supply the correction, so rho solves

    1 - (1 - beta(rho))^k = rho beta(rho),

where that mass is min(rho q, p), and the correction comes from max(p - rho q, 0). This reaches at
least 1 - 1 / e of the best acceptance that k drafts allow.

Uniforms: at most one of :attr:`Role.ACCEPT` per draft that is looked at, none where the
probability is 0 or 1, and one of :attr:`Role.RESIDUAL` when none is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.optimize import brentq

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import VerificationError
from qr_sampler_tsd.law import Law
from qr_sampler_tsd.residual import residual_masses, residual_token
from qr_sampler_tsd.uniforms import Role, UniformSource
from qr_sampler_tsd.verification.arguments import (
    check_buffer,
    check_draft,
    check_proposal,
    check_target,
)
from qr_sampler_tsd.verification.verdict import Verdict, capped_ratio, is_accepted

__all__ = ["k_seq_acceptance", "optimal_division", "verify_k_seq"]


def verify_k_seq(
    p: FloatArray,
    q: Law,
    drafts: Sequence[int],
    uniforms: UniformSource,
    buffer: FloatArray,
    rho: float | None = None,
) -> Verdict:
    """Returns one token that follows *p*: a draft, or a correction. ``accepted`` is 1 or 0.

    Args:
        p: Shape ``(V,)``, sum 1: the target.
        q: The distribution that every draft was drawn from, independently.
        drafts: k tokens.
        uniforms: Where randomness comes from.
        buffer: Shape ``(V,)``, overwritten.
        rho: :func:`optimal_division` for k drafts; solved here if not given, which is O(V) some
            dozen times.

    Raises:
        VerificationError: When there is no draft, *p* is no distribution, a draft is outside the
            vocabulary, or vocabularies differ.
    """
    _check(p, q, buffer)
    for token in drafts:
        check_draft(token, p.size)
    if rho is None:
        rho = optimal_division(p, q, len(drafts), buffer)
    if not drafts:
        raise VerificationError("K-SEQ needs at least one draft, got 0")
    chance = 0.0
    for token in drafts:
        chance = _chance(p, q, token, rho)
        if is_accepted(chance, uniforms):
            return Verdict((token,), 1, chance)
    u = uniforms.draw_one(Role.RESIDUAL)
    return Verdict((residual_token(p, q, u, buffer, 1.0 / rho),), 0, chance)


def optimal_division(p: FloatArray, q: Law, drafts: int, buffer: FloatArray) -> float:
    """Returns rho, in [1, k], to the precision of float64.

    Args:
        p: Shape ``(V,)``, sum 1: the target.
        q: The proposal.
        drafts: k.
        buffer: Shape ``(V,)``, overwritten.

    Raises:
        VerificationError: When *drafts* is below 1, *p* is no distribution, or vocabularies differ.
    """
    if drafts < 1:
        raise VerificationError(f"K-SEQ needs at least one draft, got {drafts}")
    _check(p, q, buffer)

    def surplus(rho: float) -> float:
        beta = _overlap(p, q, rho, buffer)
        return _one_of(drafts, beta) - rho * beta

    # It falls from 1 - (1 - beta)^k - beta >= 0 to 1 - (1 - beta)^k - k beta <= 0, strictly where
    # beta > 0; where it starts at 0 there is nothing to gain, or nothing to accept.
    if surplus(1.0) <= 0 or surplus(float(drafts)) >= 0:
        return 1.0
    return float(brentq(surplus, 1.0, float(drafts), xtol=1e-15, rtol=1e-15))


def k_seq_acceptance(
    p: FloatArray, q: Law, drafts: int, buffer: FloatArray, rho: float | None = None
) -> float:
    """Returns 1 - (1 - beta)^k, the probability that one of k drafts is accepted.

    Args:
        p: Shape ``(V,)``, sum 1: the target.
        q: The proposal.
        drafts: k.
        buffer: Shape ``(V,)``, overwritten.
        rho: :func:`optimal_division` for k drafts; solved here if not given.
    """
    if rho is None:
        rho = optimal_division(p, q, drafts, buffer)
    return _one_of(drafts, _overlap(p, q, rho, buffer))


def _check(p: FloatArray, q: Law, buffer: FloatArray) -> None:
    check_target(p)
    check_proposal(p, q)
    check_buffer(buffer, p.size)


def _chance(p: FloatArray, q: Law, token: int, rho: float) -> float:
    return capped_ratio(float(p[token]), rho * q.prob_of(token))


def _overlap(p: FloatArray, q: Law, rho: float, buffer: FloatArray) -> float:
    """Returns beta = sum min(q, p / rho), by min(a, b) = a - max(a - b, 0)."""
    beta = 1.0 / rho - float(residual_masses(p, q, buffer, 1.0 / rho).sum())
    return min(max(beta, 0.0), 1.0)


def _one_of(drafts: int, beta: float) -> float:
    return 1.0 if beta >= 1 else -math.expm1(drafts * math.log1p(-beta))
