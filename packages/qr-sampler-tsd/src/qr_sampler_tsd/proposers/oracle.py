# SPDX-License-Identifier: Apache-2.0
"""A proposer that asks the target itself: the best there can be, and of no use but to compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from qr_sampler_tsd.craft import craft_relative_psi
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers.base import Proposer, checked_context, checked_token
from qr_sampler_tsd.psi_relative import PsiRelative

__all__ = ["OracleProposer"]


class OracleProposer(Proposer[tuple[int, ...]]):
    """Top-K of the target, labelled by :attr:`is_oracle`.

    It bounds what any payload of K tokens and an even tail can reach, and costs a target pass per
    draft token, so that it never makes anything faster.

    Args:
        target: Returns the distribution of the next token, shape ``(V,)``, after given tokens.
        vocab_size: Number of tokens, V.
        k: Tokens of the head, 1 to V.
        tau: Temperature of the scores.
        context_tokens: How many last tokens the target is given, ``None`` for all.

    Examples:
        >>> rows = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [0.0, 0.0, 1.0]])
        >>> oracle = OracleProposer(lambda tokens: rows[tokens[-1]], 3, k=1, context_tokens=1)
        >>> state = oracle.start([0, 1])
        >>> oracle.psi(state).ids.tolist(), oracle.psi(oracle.advance(state, 0)).ids.tolist()
        ([2], [0])
    """

    is_oracle: ClassVar[bool] = True

    def __init__(
        self,
        target: Callable[[Sequence[int]], ArrayLike],
        vocab_size: int,
        k: int,
        *,
        tau: float = 1.0,
        context_tokens: int | None = None,
    ) -> None:
        if context_tokens is not None and context_tokens < 1:
            raise ProposerError(f"context_tokens={context_tokens} must be at least 1, or None")
        self._target = target
        self._vocab_size = vocab_size
        self._k = k
        self._tau = tau
        self._context_tokens = context_tokens

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""
        return self._vocab_size

    def start(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Returns the tokens that the target will see."""
        return checked_context(tokens, self._context_tokens, self._vocab_size)

    def advance(self, state: tuple[int, ...], token: int) -> tuple[int, ...]:
        """Returns the tokens that the target will see after one more."""
        longer = (*state, checked_token(token, self._vocab_size))
        return longer if self._context_tokens is None else longer[-self._context_tokens :]

    def psi(self, state: tuple[int, ...]) -> PsiRelative:
        """Returns the best payload for the target's own distribution.

        Raises:
            ProposerError: When the target's distribution is not over the vocabulary.
            PsiError: When it is no distribution.
        """
        law = np.asarray(self._target(state), dtype=np.float64)
        if law.shape != (self._vocab_size,):
            raise ProposerError(
                f"the target gave the shape {law.shape}; it must be ({self._vocab_size},)"
            )
        return craft_relative_psi(law, self._k, self._tau)
