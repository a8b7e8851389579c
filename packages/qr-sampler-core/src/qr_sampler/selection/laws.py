# SPDX-License-Identifier: Apache-2.0
"""The distributions that tokens are drawn from, for those who need more of them than one token.

The law of a row is what :class:`~qr_sampler.Selector` draws from: a probability is the mass of a
token over the total of the masses that truncation kept, one correctly rounded division of two whole
numbers. All selectors have the same laws, bit for bit.

Speculative decoding draws from the residual ``max(c p - q, 0)`` of a law p, too (Leviathan et al.
2023, arXiv 2211.17192). So that its sums are exact in any order, as those of masses are, it is
rounded to multiples of 2**-52: with V tokens the distribution of the text differs by V 2**-53 at
most, below 2e-11 for 151,936 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np

from qr_sampler.arrays import FloatArray, IndexArray
from qr_sampler.selection.masses import ceil_product

__all__ = [
    "RESIDUAL_UNIT",
    "Residual",
    "RowLaws",
    "SparseLaw",
    "goal_above",
    "residual_masses",
]

RESIDUAL_UNIT: Final = 2.0**52
"""The mass of a residual probability of 1."""


class SparseLaw(NamedTuple):
    """A distribution in which all tokens but a few are equally probable."""

    token_ids: IndexArray
    """Shape ``(K,)``, those few, ascending, each once."""
    probabilities: FloatArray
    """Shape ``(K,)``, their probabilities."""
    elsewhere: float
    """The probability of each of the others."""


class Residual(NamedTuple):
    """What another law leaves of the law p of a row: max(c p - q, 0)."""

    row: int
    """Index of the row."""
    weight: float = 1.0
    """c, in (0, 1]."""
    law: SparseLaw | None = None
    """q; ``None`` for p itself, whatever c is."""


class RowLaws(Protocol):
    """The laws of the D decidable rows of a plan.

    They refer to the logits, which must stay unchanged, and to the memory of their selector: they
    are valid until that measures another batch.
    """

    @property
    def candidates(self) -> IndexArray:
        """Shape ``(D,)``, numbers of tokens that truncation kept; V where nothing truncates."""

    def probabilities(self, rows: Sequence[int], token_ids: Sequence[int]) -> FloatArray:
        """Returns the probability of a token in a row for each of N pairs. Shapes ``(N,)``."""

    def ranks(self, rows: Sequence[int], token_ids: Sequence[int]) -> IndexArray:
        """Returns the rank of a token in a row, 0 for the most probable, for each of N pairs."""

    def dense(self, row: int) -> FloatArray:
        """Returns the probabilities of all tokens of *row*. Shape ``(V,)``."""

    def remainders(self, residuals: Sequence[Residual]) -> FloatArray:
        """Returns the sum over all tokens of each residual, 1 for that of p itself. ``(N,)``."""

    def select(self, residuals: Sequence[Residual], u: FloatArray) -> IndexArray:
        """Returns a token of each residual, by ascending token id.

        That is the first one whose running total exceeds u times the total. Where rounding leaves
        nothing of a residual, the token comes from p.

        Args:
            residuals: N residuals.
            u: Shape ``(N,)``, multiples of 2**-53 in [0, 1).
        """


def residual_masses(
    p: FloatArray, weight: float, q: FloatArray | float, out: FloatArray | None = None
) -> FloatArray:
    """Returns ``max(weight p - q, 0)`` in whole numbers of 2**-52, rounded, ties to even.

    Their sum is below 2**53 for any law of up to 2**50 tokens, so that it is exact in any order.

    Args:
        p: Shape ``(N,)``, probabilities of a law.
        weight: c, in (0, 1].
        q: Probabilities of another law. Shape ``(N,)``, or one for all.
        out: Receives the result. Shape ``(N,)``.
    """
    left: FloatArray = np.multiply(p, weight, out=out)
    left -= q
    np.maximum(left, 0.0, out=left)
    left *= RESIDUAL_UNIT
    return np.rint(left, out=left)


def goal_above(u: float, total: int) -> int:
    """Returns the least whole number that exceeds u times *total*.

    Args:
        u: A multiple of 2**-53 in [0, 1).
        total: Positive.
    """
    return total + 1 - ceil_product(1.0 - u, total)
