# SPDX-License-Identifier: Apache-2.0
"""M1 for any vocabulary: synthetic bigram rows that are made from the seed when they are needed."""

from __future__ import annotations

import numpy as np

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import TargetError
from qr_sampler_tsd.targets.categorical import checked_size

__all__ = ["SyntheticBigram"]


class SyntheticBigram:
    """A bigram with rows P(. | x) ~ Dirichlet(1 + c u), u ~ Dirichlet(1) common to all.

    A table for 151,936 tokens would take 185 GB. Here tokens that are equal modulo C share a row,
    so that a chain visits C contexts; with C = V every token has its own. Each row comes from a
    stream of its own, so that it does not depend on C or on which rows were made before.

    Args:
        vocab_size: V.
        seed: Any integer from 0; the generator is PCG64.
        c: Weight of what the rows have in common, at least 0.
        contexts: C, 1 to V; V if not given.

    Raises:
        TargetError: When a value is out of range.
    """

    def __init__(
        self, vocab_size: int, seed: int = 7, c: float = 50.0, contexts: int | None = None
    ) -> None:
        self._vocab_size = checked_size(vocab_size)
        self._contexts = vocab_size if contexts is None else contexts
        if not 1 <= self._contexts <= vocab_size:
            raise TargetError(f"contexts={contexts} must be from 1 to the vocabulary {vocab_size}")
        if not 0 <= c < np.inf:
            raise TargetError(f"c={c} must be a finite number of at least 0")
        self._seed = seed
        common = self._stream(0).dirichlet(np.ones(vocab_size))
        self._concentration = 1.0 + c * common

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""
        return self._vocab_size

    @property
    def contexts(self) -> int:
        """Number of contexts, C."""
        return self._contexts

    def context_after(self, token: int) -> int:
        """Returns *token* modulo C."""
        return token % self._contexts

    def row(self, context: int) -> FloatArray:
        """Returns a new array with the row of *context*, made in O(V)."""
        return self._stream(1, context).dirichlet(self._concentration)

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))
