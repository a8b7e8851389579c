# SPDX-License-Identifier: Apache-2.0
"""The token in place of a rejected one: a draw from r ~ max(c p - q, 0).

With c = 1 this is the correction of Leviathan et al. 2023 (arXiv 2211.17192, appendix A.1); block
verification (Sun et al. 2025, arXiv 2403.10444) scales p by the joint acceptance c <= 1.
"""

from __future__ import annotations

import numpy as np

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.law import Law
from qr_sampler_tsd.uniforms import Role, UniformSource

__all__ = ["residual_by_thinning", "residual_masses", "residual_token", "token_at"]


def residual_masses(p: FloatArray, q: Law, out: FloatArray, weight: float = 1.0) -> FloatArray:
    """Returns ``max(weight p - q, 0)`` in *out*: O(V + K), nothing of size V allocated.

    Args:
        p: Shape ``(V,)``: the target.
        q: The proposal.
        out: Shape ``(V,)``, overwritten.
        weight: c, in (0, 1].
    """
    np.multiply(p, weight, out=out)
    q.subtract_from(out)
    return np.maximum(out, 0.0, out=out)


def token_at(masses: FloatArray, u: float) -> int:
    """Returns the token at *u* of the inverse distribution function, by ascending token.

    Args:
        masses: Shape ``(V,)``, at least 0, not all 0; overwritten by their running sum.
        u: In [0, 1).

    Raises:
        ValueError: When all masses are 0, or one is no number.
    """
    np.cumsum(masses, out=masses)
    total = float(masses[-1])
    if not total > 0:
        what = "hold NaN" if np.isnan(total) else "are all 0"
        raise ValueError(f"the masses {what}: there is no token to choose")
    # A running sum does not grow at a token of mass 0, and 'right' skips it.
    return int(masses.searchsorted(u * total, side="right"))


def residual_token(p: FloatArray, q: Law, u: float, buffer: FloatArray, weight: float = 1.0) -> int:
    """Returns a draw from ``max(weight p - q, 0)``, or from *p* where rounding left nothing of it.

    A rejection has probability 1 - sum min(c p, q), so nothing can be left only when that is itself
    a rounding error.

    Args:
        p: Shape ``(V,)``: the target.
        q: The proposal.
        u: In [0, 1).
        buffer: Shape ``(V,)``, overwritten.
        weight: c, in (0, 1].
    """
    masses = residual_masses(p, q, buffer, weight)
    if not masses.any():
        np.copyto(masses, p)
    return token_at(masses, u)


def residual_by_thinning(
    p: FloatArray, cumulative: FloatArray, q: Law, uniforms: UniformSource
) -> int:
    """Returns a draw from ``max(p - q, 0)`` in O(log V) for a *p* whose running sum is known.

    Candidates from p are kept with probability 1 - min(1, q / p), which leaves exactly
    p - min(p, q). It takes 1 / (1 - sum min(p, q)) candidates on average, each two uniforms.

    Args:
        p: Shape ``(V,)``: the target.
        cumulative: Shape ``(V,)``: its running sum.
        q: The proposal; it differs from *p*.
        uniforms: Drawn from for :attr:`Role.RESIDUAL`, two at a time.
    """
    total = float(cumulative[-1])
    while True:
        u, keep = uniforms.draw(2, Role.RESIDUAL).tolist()
        token = int(cumulative.searchsorted(u * total, side="right"))
        if keep * float(p[token]) >= q.prob_of(token):
            return token
