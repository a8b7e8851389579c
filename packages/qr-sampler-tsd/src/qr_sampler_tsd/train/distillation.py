# SPDX-License-Identifier: Apache-2.0
"""Proposers that imitate a model: they learn its distributions, not only its chosen tokens."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from qr_sampler_tsd._typing import FloatArray, SingleArray, TokenArray
from qr_sampler_tsd.craft import craft_relative_psi
from qr_sampler_tsd.errors import ProposerError
from qr_sampler_tsd.proposers.bigram import BigramProposer
from qr_sampler_tsd.proposers.head import HeadWeights, softmax
from qr_sampler_tsd.train.examples import Examples
from qr_sampler_tsd.train.fitting import FitSettings, Progress, fit_head

__all__ = ["BigramDistiller", "cross_entropy", "distil_head", "mean_law"]

_LEAST_OF_ALL = 1e-12
"""A head starts from the logarithm of a distribution, and a distribution may hold zeros."""


class BigramDistiller:
    """Adds up the distributions that follow each token, in pieces of any size.

    The mean of the model's distributions after a token is the row that has the least cross entropy
    among all that know only that token. Sums are kept for tokens that examples name; what they
    leave open is spread evenly, so that memory grows with the variety of the text and not with V
    squared.

    Args:
        vocab_size: Number of tokens, V.
        temperature: Of the distributions that will be added; ``None`` where it is not known.
    """

    def __init__(self, vocab_size: int, temperature: float | None = None) -> None:
        self._temperature = temperature
        self._sums = sparse.csr_array((vocab_size, vocab_size), dtype=np.float64)
        self._rest = np.zeros(vocab_size)
        self._counts: TokenArray = np.zeros(vocab_size, dtype=np.int64)

    @property
    def counts(self) -> TokenArray:
        """Shape ``(V,)``: how many distributions each token was followed by so far."""
        return np.array(self._counts)

    def add(self, examples: Examples) -> None:
        """Counts *examples* in.

        Raises:
            ProposerError: When they are of another vocabulary.
        """
        if examples.vocab_size != self._counts.size:
            raise ProposerError(
                f"examples of {examples.vocab_size} tokens for a table of {self._counts.size}"
            )
        last = examples.contexts[:, 0]
        places = (np.repeat(last, examples.ids.shape[1]), examples.ids.ravel())
        masses = examples.probs.ravel().astype(np.float64)
        # Entries of the same place are added up.
        self._sums = self._sums + sparse.csr_array((masses, places), shape=self._sums.shape)
        np.add.at(self._rest, last, examples.rest())
        np.add.at(self._counts, last, 1)

    def law(self, token: int | None) -> FloatArray:
        """Returns the mean distribution after *token*, of all tokens when ``None``; shape ``(V,)``.

        Raises:
            ProposerError: When no distribution was added for it.
        """
        rows = slice(None) if token is None else slice(token, token + 1)
        seen = int(self._counts[rows].sum())
        if not seen:
            raise ProposerError(f"no law was added after the token {token}")
        sums = self._sums[rows]
        masses = np.zeros(self._counts.size)
        np.add.at(masses, sums.indices, sums.data)
        unnamed = masses == 0
        masses[unnamed] = self._rest[rows].sum() / max(int(unnamed.sum()), 1)
        law: FloatArray = masses / masses.sum()
        return law

    def table(self, k: int) -> BigramProposer:
        """Returns the table: a payload for every token seen, the mean's for the others.

        Args:
            k: Tokens of each payload's head, 1 to V.

        Raises:
            ProposerError: When nothing was added.
            PsiError: When *k* is out of range.
        """
        overall = craft_relative_psi(self.law(None), k)
        seen = np.flatnonzero(self._counts).tolist()
        return BigramProposer.from_payloads(
            overall,
            {token: craft_relative_psi(self.law(token), k) for token in seen},
            self._temperature,
        )


def cross_entropy(logits: SingleArray, targets: SingleArray) -> tuple[SingleArray, SingleArray]:
    """Returns ``- sum p log q`` with q = softmax(logits), and its derivative q - p.

    Args:
        logits: Shape ``(B, V)``, natural-log units.
        targets: Shape ``(B, V)``: p.
    """
    q = softmax(logits)
    tiny = np.finfo(np.float32).tiny
    losses: SingleArray = -np.sum(targets * np.log(np.maximum(q, tiny)), axis=1)
    return losses, q - targets


def mean_law(examples: Examples) -> FloatArray:
    """Returns the mean of all distributions of *examples*, shape ``(V,)``, every entry above 0."""
    share = float(examples.rest().sum()) / examples.vocab_size
    masses = np.full(examples.vocab_size, share + _LEAST_OF_ALL * len(examples))
    np.add.at(masses, examples.ids.ravel(), examples.probs.ravel())
    law: FloatArray = masses / masses.sum()
    return law


def distil_head(
    examples: Examples,
    *,
    settings: FitSettings,
    context_tokens: int = 4,
    width: int = 64,
    buckets: int = 4096,
    progress: Progress | None = None,
) -> HeadWeights:
    """Returns the weights of a head with a small cross entropy to the distributions of *examples*.

    Args:
        examples: What to learn, with contexts of at least *context_tokens*.
        settings: How long and how fast; its seed also makes the first weights.
        context_tokens: Tokens that the head looks back.
        width: Size of the hidden layer, which is the rank of the logits.
        buckets: Rows of a table; tokens share rows when V is larger.
        progress: Told the cross entropy of every step, in nats.

    Raises:
        ProposerError: When a number is out of range, or there are no examples.
    """
    if not len(examples):
        raise ProposerError("a head needs examples to learn from")
    start = HeadWeights.initial(
        mean_law(examples),
        context_tokens=context_tokens,
        width=width,
        buckets=buckets,
        rng=settings.seed,
    )
    return fit_head(start, examples, cross_entropy, settings, progress)
