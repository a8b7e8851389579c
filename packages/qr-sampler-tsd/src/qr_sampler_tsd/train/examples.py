# SPDX-License-Identifier: Apache-2.0
"""What a proposer learns from: contexts, and the distributions that a model gave after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qr_sampler_tsd._typing import IdArray, SingleArray, TokenArray
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers.head import ABSENT, softmax

__all__ = ["Examples"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Distributions of the next token after N contexts, each by its M best tokens.

    What the others have together is spread evenly over them: 8 M bytes an example instead of 4 V.
    With M = V nothing is lost.
    """

    contexts: IdArray
    """Shape ``(N, C)``: the last tokens, the newest first, ``ABSENT`` before the beginning."""
    ids: IdArray
    """Shape ``(N, M)``: different tokens of each row, in any order."""
    probs: SingleArray
    """Shape ``(N, M)``: their probabilities, summing to at most 1."""
    vocab_size: int
    """Number of tokens, V."""

    @classmethod
    def from_logits(
        cls,
        tokens: ArrayLike,
        logits: ArrayLike,
        *,
        context_tokens: int,
        kept: int,
        temperature: float = 1.0,
    ) -> Examples:
        """Returns one example per token of a sequence.

        Args:
            tokens: Shape ``(N,)``: the sequence.
            logits: Shape ``(N, V)``, natural-log units, not ``+inf`` or NaN: those of the token
                after each.
            context_tokens: C, at least 1.
            kept: M, at least 1; at most V are of use, and used.
            temperature: Divides the logits, above 0.

        Raises:
            ProposerError: When shapes or values are none of these.
        """
        sequence, rows = np.asarray(tokens), np.asarray(logits, dtype=np.float32)
        if sequence.ndim != 1 or rows.ndim != 2 or len(sequence) != len(rows) or not rows.size:
            raise ProposerError(
                f"tokens of shape (N,) need logits of shape (N, V), got {sequence.shape} and "
                f"{rows.shape}"
            )
        vocab_size = rows.shape[1]
        if not (np.issubdtype(sequence.dtype, np.integer) and _within(sequence, vocab_size)):
            raise ProposerError(f"tokens must be integers from 0 to {vocab_size - 1}")
        if not np.isfinite(rows.max(axis=1)).all():
            raise ProposerError("each row of logits needs a finite maximum")
        if context_tokens < 1 or kept < 1 or not temperature > 0:
            raise ProposerError(
                f"context_tokens={context_tokens} and kept={kept} must be at least 1, "
                f"temperature={temperature} above 0"
            )
        ids, probs = _best(softmax(rows / np.float32(temperature)), min(kept, vocab_size))
        return cls(
            contexts=_contexts(sequence.astype(np.int32), context_tokens),
            ids=ids,
            probs=probs,
            vocab_size=vocab_size,
        )

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """Returns the examples of all *parts*, which agree in C, M and V.

        Raises:
            ProposerError: When there are none, or they do not agree.
        """
        sizes = {(part.contexts.shape[1], part.ids.shape[1], part.vocab_size) for part in parts}
        if len(sizes) != 1:
            raise ProposerError("examples are joined when there are some, all of equal C, M and V")
        return cls(
            contexts=np.concatenate([part.contexts for part in parts]),
            ids=np.concatenate([part.ids for part in parts]),
            probs=np.concatenate([part.probs for part in parts]),
            vocab_size=parts[0].vocab_size,
        )

    def __len__(self) -> int:
        return len(self.contexts)

    def rest(self, rows: slice | TokenArray = slice(None)) -> SingleArray:
        """Returns the probability of all tokens that are not among :attr:`ids`, shape ``(B,)``."""
        named = self.probs[rows].sum(axis=1, dtype=np.float64)
        if self.ids.shape[1] == self.vocab_size:
            return np.zeros(len(named), np.float32)
        left: SingleArray = np.maximum(1 - named, 0).astype(np.float32)
        return left

    def dense(self, rows: slice | TokenArray = slice(None)) -> SingleArray:
        """Returns the distributions of some examples, shape ``(B, V)``."""
        others = max(self.vocab_size - self.ids.shape[1], 1)
        share = self.rest(rows) / np.float32(others)
        laws = np.repeat(share[:, None], self.vocab_size, axis=1)
        np.put_along_axis(laws, self.ids[rows].astype(np.int64), self.probs[rows], axis=1)
        return laws


def _within(tokens: TokenArray, vocab_size: int) -> bool:
    return bool(tokens.min() >= 0 and tokens.max() < vocab_size)


def _best(laws: SingleArray, kept: int) -> tuple[IdArray, SingleArray]:
    ids = np.argpartition(laws, laws.shape[1] - kept, axis=1)[:, laws.shape[1] - kept :]
    return ids.astype(np.int32), np.take_along_axis(laws, ids, axis=1)


def _contexts(tokens: IdArray, width: int) -> IdArray:
    """Returns the last *width* tokens at every place of a sequence, the newest first."""
    padded = np.concatenate([np.full(width - 1, ABSENT, np.int32), tokens])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    newest_first: IdArray = windows[:, ::-1].copy()
    return newest_first
