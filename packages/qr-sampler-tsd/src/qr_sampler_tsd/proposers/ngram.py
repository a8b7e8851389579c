# SPDX-License-Identifier: Apache-2.0
"""Prompt lookup: what followed the last tokens where they have occurred before in the same text.

Saxena 2023 (prompt lookup decoding) and vLLM's n-gram speculator copy what followed the longest
match. Here all matches vote, each with a weight that grows by :data:`GROWTH` with every token that
it is longer, and the payload claims more of a mixture the longer the longest one is. It learns
nothing and costs no memory but the text; it pays where a text repeats itself or its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from qr_sampler_tsd._typing import FloatArray, IdArray, TokenArray
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers.base import Proposer, checked_context, checked_token
from qr_sampler_tsd.proposers.masses import psi_of_masses
from qr_sampler_tsd.psi_relative import PsiRelative

__all__ = ["GROWTH", "NgramProposer", "NgramState"]

GROWTH: Final = 4.0
"""How many times as much a match counts that is one token longer."""

_LONGEST_TAIL: Final = 64
"""Tokens after which the body of a state is copied."""

_Matches: TypeAlias = tuple[IdArray, TokenArray]
_NOTHING: Final[_Matches] = (np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class NgramState:
    """A text up to some token. States that continue each other share most of it."""

    body: IdArray
    """Its first tokens, not to be changed."""
    tail: tuple[int, ...] = ()
    """The tokens behind them, a few."""

    @property
    def tokens(self) -> IdArray:
        """All tokens, shape ``(N,)``."""
        return np.concatenate([self.body, np.array(self.tail, dtype=np.int32)])


class NgramProposer(Proposer[NgramState]):
    """What followed the last tokens of a text before, weighed by how much of it agrees.

    A payload takes O(N) for a text of N tokens, in NumPy: some 50 µs for a thousand and 80 for
    32,000.

    Args:
        vocab_size: Number of tokens, V.
        longest: Most tokens that are compared, at least 1.
        k: Most tokens of a payload's head, at least 1.

    Raises:
        ProposerError: When a number is out of range.

    Examples:
        >>> proposer = NgramProposer(100)
        >>> state = proposer.start([7, 8, 9, 1, 7, 8])
        >>> proposer.psi(state).ids.tolist(), proposer.confidence(state)
        ([9], 0.5)
        >>> proposer.confidence(proposer.advance(state, 50))
        0.0
    """

    def __init__(self, vocab_size: int, longest: int = 8, k: int = 16) -> None:
        if vocab_size < 1 or longest < 1 or k < 1:
            raise ProposerError(
                f"vocab_size={vocab_size}, longest={longest} and k={k} must be at least 1"
            )
        self._vocab_size = vocab_size
        self._longest = longest
        self._k = min(k, vocab_size)
        self._found: tuple[NgramState | None, _Matches] = (None, _NOTHING)
        """The matches that were looked for last, which a mixture asks for twice."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""
        return self._vocab_size

    def start(self, tokens: Sequence[int]) -> NgramState:
        """Returns the state after all of *tokens*."""
        return NgramState(np.array(checked_context(tokens, None, self._vocab_size), np.int32))

    def advance(self, state: NgramState, token: int) -> NgramState:
        """Returns the state after one more token; going back costs nothing."""
        tail = (*state.tail, checked_token(token, self._vocab_size))
        longer = NgramState(state.body, tail)
        return longer if len(tail) < _LONGEST_TAIL else NgramState(longer.tokens)

    def psi(self, state: NgramState) -> PsiRelative:
        """Returns what followed the matches, and what they leave open spread evenly."""
        followers, lengths = self._matches(state)
        if not followers.size:
            return psi_of_masses(np.zeros(1, np.int64), np.zeros(1), 1.0, self._vocab_size)
        ids, which = np.unique(followers, return_inverse=True)
        votes = np.bincount(which, weights=GROWTH ** (lengths - lengths.max()))
        best = np.argsort(-votes, kind="stable")[: self._k]
        share = _claim(lengths)
        masses: FloatArray = share * votes[best] / votes[best].sum()
        return psi_of_masses(ids[best].astype(np.int64), masses, 1 - share, self._vocab_size)

    def confidence(self, state: NgramState) -> float:
        """Returns how much of a mixture it claims: (m - 1) / m for a longest match of m tokens."""
        return _claim(self._matches(state)[1])

    def _matches(self, state: NgramState) -> _Matches:
        known, found = self._found
        if known is not state:
            found = self._matches_in(state.tokens)
            self._found = (state, found)
        return found

    def _matches_in(self, tokens: IdArray) -> _Matches:
        """Returns what followed earlier occurrences of the last token, and how much agrees."""
        count = tokens.size
        places = np.flatnonzero(tokens[: count - 1] == tokens[-1]) + 1
        lengths = np.ones(places.size, dtype=np.int64)
        for length in range(2, min(self._longest, count - 1) + 1):
            reach = places >= length
            alike = lengths == length - 1
            alike &= reach
            alike[alike] = tokens[places[alike] - length] == tokens[count - length]
            if not alike.any():
                break
            lengths[alike] = length
        return tokens[places], lengths


def _claim(lengths: TokenArray) -> float:
    longest = int(lengths.max(initial=0))
    return 1 - 1 / longest if longest else 0.0
