# SPDX-License-Identifier: Apache-2.0
"""What a verifier answers, and the two decisions that all verifiers are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.law import Law
from qr_sampler_tsd.residual import token_at
from qr_sampler_tsd.uniforms import Role, UniformSource

__all__ = [
    "Judgement",
    "Rows",
    "Verdict",
    "acceptance",
    "capped_ratio",
    "is_accepted",
    "token_of",
]

Rows: TypeAlias = FloatArray | Sequence[FloatArray]
"""Target rows of shape ``(L + 1, V)``: an array, or rows that lie apart."""


class Verdict(NamedTuple):
    """What is emitted after one pass of the target."""

    tokens: tuple[int, ...]
    """The accepted drafts, then the token that the verifier chose itself, if it chose one."""
    accepted: int
    """How many drafts are accepted."""
    acceptance: float
    """The probability, given the drafts, of the last acceptance test: for one draft, alpha."""

    @property
    def token(self) -> int:
        """The last token."""
        return self.tokens[-1]


class Judgement(NamedTuple):
    """Which drafts of a block stand."""

    accepted: int
    """How many drafts are accepted."""
    acceptance: float
    """The probability, given the drafts, of the last acceptance test."""
    weight: float
    """c in max(c p - q, 0), which the token after a rejected draft comes from."""


def acceptance(p: FloatArray, q: Law, token: int) -> float:
    """Returns alpha = min(1, p / q) at *token*.

    A token that q cannot propose can only come from a faulty device; it is accepted if p has it.
    """
    return capped_ratio(float(p[token]), q.prob_of(token))


def capped_ratio(target: float, draft: float) -> float:
    """Returns min(1, *target* / *draft*) of two weights of a token, 0 where both are 0."""
    return target / draft if target < draft else float(target > 0)


def is_accepted(probability: float, uniforms: UniformSource) -> bool:
    """Returns whether an event of this *probability* occurs; draws nothing when it is certain."""
    if probability <= 0 or probability >= 1:
        return probability >= 1
    return uniforms.draw_one(Role.ACCEPT) < probability


def token_of(p: FloatArray, uniforms: UniformSource, buffer: FloatArray) -> int:
    """Returns a draw from *p* for :attr:`Role.BONUS`; *buffer* is overwritten."""
    np.copyto(buffer, p)
    return token_at(buffer, uniforms.draw_one(Role.BONUS))
