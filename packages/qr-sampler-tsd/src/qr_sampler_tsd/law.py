# SPDX-License-Identifier: Apache-2.0
"""F(psi): the categorical distribution that a payload represents.

A head of K tokens with weights of their own and a tail in which all tokens weigh the same:

    q(i) = w_i / Z for a token of the head, q(o) = t / Z for one of the tail,
    Z = sum of w + n t, n the number of tail tokens.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numpy.typing import ArrayLike

from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.errors import PsiError
from qr_sampler_tsd.exclusion import nth_absent, sorted_unique_ids

__all__ = ["HeadTailLaw", "Law"]

_SMALLEST_FLOAT: Final = 5e-324


class Law(Protocol):
    """A categorical distribution over a vocabulary, as a verifier needs it of a proposal."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""

    def probs_of(self, ids: ArrayLike) -> FloatArray:
        """Returns the probabilities of *ids*, of their shape."""

    def prob_of(self, token: int) -> float:
        """Returns the probability of one token."""

    def subtract_from(self, masses: FloatArray) -> None:
        """Takes the probability of every token off *masses*, shape ``(V,)``, in place."""


class HeadTailLaw:
    """A distribution of K weighted tokens and equal weights for all others.

    Immutable. Sums are made in float64; the largest head weight is scaled to 1, so that nothing
    overflows whatever the scores are.

    Args:
        ids: Shape ``(K,)``, the tokens of the head in any order, each once.
        log_weights: Shape ``(K,)``, natural logarithms, finite.
        log_tail: Natural logarithm of the weight of *one* tail token, on the same scale; ``-inf``
            leaves the tail out.
        vocab_size: Number of tokens.
        excluded: Tokens of probability 0; those of the head lose their weight.

    Raises:
        PsiError: When ids repeat or are out of range, a weight is not finite, or nothing has any
            probability.

    Examples:
        >>> law = HeadTailLaw([7, 2], np.log([2.0, 1.0]), np.log(0.5), vocab_size=4 + 4)
        >>> law.probs().round(4).tolist()
        [0.0833, 0.0833, 0.1667, 0.0833, 0.0833, 0.0833, 0.0833, 0.3333]
        >>> law.select(np.array([0.0, 0.4, 0.55, 0.999])).tolist()
        [7, 2, 0, 6]
    """

    __slots__ = (
        "_apart",
        "_apart_probs",
        "_cumulative",
        "_gaps",
        "_head_weight",
        "_tail_weight",
        "_total",
        "ids",
        "tail_count",
        "tail_prob",
        "vocab_size",
    )

    def __init__(
        self,
        ids: ArrayLike,
        log_weights: ArrayLike,
        log_tail: float,
        vocab_size: int,
        excluded: ArrayLike = (),
    ) -> None:
        self.vocab_size = vocab_size
        members = sorted_unique_ids(ids, vocab_size, "the ids")
        barred = sorted_unique_ids(excluded, vocab_size, "the excluded ids")
        head = np.asarray(ids, dtype=np.int64)
        scores = _checked_scores(log_weights, head.size)
        if barred.size:
            kept = ~np.isin(head, barred)
            head, scores = head[kept], scores[kept]
            members = np.union1d(members, barred)
        self.ids: TokenArray = head
        """Shape ``(K,)``: the tokens of the head that have probability, in the order given."""
        self.tail_count = vocab_size - members.size
        """Number of tail tokens, n."""
        self._apart = members
        self._gaps = members - np.arange(members.size)
        self._weigh(scores, _checked_tail(log_tail) if self.tail_count else -np.inf)

    def _weigh(self, scores: FloatArray, log_tail: float) -> None:
        """Scales all weights by the largest and adds them up."""
        shift = max(float(scores.max(initial=-np.inf)), log_tail)
        if shift == -np.inf:
            raise PsiError(
                "no token has any probability: the exclusion covers the whole head and the tail "
                "weighs nothing; exclude less or give the tail a weight"
            )
        weights = np.exp(scores - shift)
        self._tail_weight = float(np.exp(log_tail - shift))
        # The last entry is the total, Z.
        self._cumulative: FloatArray = np.cumsum(
            np.append(weights, self._tail_weight * self.tail_count)
        )
        total = float(self._cumulative[-1])
        self._total = total
        self._head_weight = float(self._cumulative[-2]) if self.ids.size else 0.0
        self.tail_prob = self._tail_weight / total
        """The probability of one tail token."""
        # What is excluded stays 0.
        self._apart_probs = np.zeros(self._apart.size)
        self._apart_probs[np.searchsorted(self._apart, self.ids)] = weights / total

    @property
    def head_probs(self) -> FloatArray:
        """Shape ``(K,)``: the probabilities of :attr:`ids`."""
        return self.probs_of(self.ids)

    @property
    def apart(self) -> tuple[TokenArray, FloatArray]:
        """The tokens that are not of the tail, ascending, and their probabilities.

        All others have :attr:`tail_prob`. Shapes ``(M,)``; not to be changed.
        """
        return self._apart, self._apart_probs

    @property
    def tail_mass(self) -> float:
        """The probability of all tail tokens together."""
        return self.tail_prob * self.tail_count

    @property
    def cell_probs(self) -> FloatArray:
        """Shape ``(K + 1,)``: :attr:`head_probs` and, as one cell, the :attr:`tail_mass`."""
        return np.append(self.head_probs, self.tail_mass)

    def with_cells(self, cells: FloatArray) -> HeadTailLaw:
        """Returns the same head and tail with other probabilities of the cells.

        Args:
            cells: Shape ``(K + 1,)``, at least 0, in the order of :attr:`cell_probs`. A head token
                of probability 0 gets the smallest float64 above.
        """
        logs = np.log(np.maximum(cells, _SMALLEST_FLOAT))
        tail = logs[-1] - np.log(self.tail_count) if self.tail_count and cells[-1] else -np.inf
        excluded = np.setdiff1d(self._apart, self.ids)
        return HeadTailLaw(self.ids, logs[:-1], float(tail), self.vocab_size, excluded)

    def tail_tokens(self, ranks: TokenArray) -> TokenArray:
        """Returns the tail tokens at *ranks* in [0, n) of their ascending order. O(log K) each."""
        return nth_absent(ranks, self._apart)

    def tail_ranks(self, tokens: TokenArray) -> TokenArray:
        """Returns what :meth:`tail_tokens` turns into *tokens*, which are all of the tail."""
        return tokens - np.searchsorted(self._apart, tokens)

    def probs(self) -> FloatArray:
        """Returns all probabilities, shape ``(V,)``."""
        dense = np.full(self.vocab_size, self.tail_prob)
        dense[self._apart] = self._apart_probs
        return dense

    def probs_of(self, ids: ArrayLike) -> FloatArray:
        """Returns the probabilities of *ids* in [0, V), of their shape. O(log K) each."""
        tokens = np.asarray(ids)
        if not self._apart.size:
            return np.full(tokens.shape, self.tail_prob)
        indices = np.minimum(np.searchsorted(self._apart, tokens), self._apart.size - 1)
        is_apart = self._apart[indices] == tokens
        return np.where(is_apart, self._apart_probs[indices], self.tail_prob)

    def prob_of(self, token: int) -> float:
        """Returns what :meth:`probs_of` returns, for one token and several times as fast."""
        place = int(self._apart.searchsorted(token))
        if place < self._apart.size and self._apart[place] == token:
            return float(self._apart_probs[place])
        return self.tail_prob

    def log_probs_of(self, ids: ArrayLike) -> FloatArray:
        """Returns the natural logarithms of :meth:`probs_of`, ``-inf`` for what cannot occur."""
        with np.errstate(divide="ignore"):
            return np.log(self.probs_of(ids))

    def subtract_from(self, masses: FloatArray) -> None:
        """Takes the probability of every token off *masses*, shape ``(V,)``, in place."""
        apart = masses[self._apart] - self._apart_probs
        masses -= self.tail_prob
        masses[self._apart] = apart

    def select(self, u: FloatArray) -> TokenArray:
        """Returns the tokens at *u* of the inverse distribution function.

        The head comes first, in the order of :attr:`ids`, then the tail by ascending token.
        Choosing among n tail tokens takes log2(n / tail mass) bits, about 20 for a vocabulary of
        10**5; a uniform of 53 bits has them, one of a z-score or of float32 has not.

        Args:
            u: Shape ``(B,)``: uniform numbers in [0, 1).
        """
        heights = u * self._total
        return self.tokens_at(np.searchsorted(self._cumulative, heights, side="right"), u)

    def tokens_at(self, cells: TokenArray, u: FloatArray) -> TokenArray:
        """Returns the tokens at *u*, the cells being known: which tail token follows from *u*.

        Args:
            cells: Shape ``(B,)``: places in :attr:`ids`, K for the tail.
            u: Shape ``(B,)``, in [0, 1). Where it lies outside the tail's share, the nearest tail
                token is taken.
        """
        tokens: TokenArray = np.append(self.ids, 0)[cells]
        beyond = cells == self.ids.size
        if beyond.any():
            above = u[beyond] * self._total - self._head_weight
            ranks = (above / self._tail_weight).astype(np.int64)
            # The quotient may round up to n.
            tokens[beyond] = self.tail_tokens(ranks.clip(0, self.tail_count - 1))
        return tokens

    def select_one(self, u: float) -> int:
        """Returns what :meth:`select` returns, for one number in [0, 1), several times as fast."""
        height = u * self._total
        place = int(self._cumulative.searchsorted(height, side="right"))
        if place < self.ids.size:
            return int(self.ids[place])
        rank = min(int((height - self._head_weight) / self._tail_weight), self.tail_count - 1)
        return rank + int(self._gaps.searchsorted(rank, side="right"))


def _checked_scores(log_weights: ArrayLike, count: int) -> FloatArray:
    scores = np.asarray(log_weights, dtype=np.float64)
    if scores.shape != (count,):
        raise PsiError(f"{count} ids need as many scores, got the shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise PsiError(f"a score is {scores[~np.isfinite(scores)][0]}; scores are finite numbers")
    return scores


def _checked_tail(log_tail: float) -> float:
    if np.isnan(log_tail) or log_tail == np.inf:
        raise PsiError(f"the tail weight has the logarithm {log_tail}; give a number or -inf")
    return float(log_tail)
