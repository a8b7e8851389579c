# SPDX-License-Identifier: Apache-2.0
"""What an experiment needs of a target: finitely many contexts, each with a distribution."""

from __future__ import annotations

from typing import Protocol

from qr_sampler_tsd._typing import FloatArray

__all__ = ["Target"]


class Target(Protocol):
    """A Markov chain over contexts; its first context is 0."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""

    @property
    def contexts(self) -> int:
        """Number of contexts, C."""

    def context_after(self, token: int) -> int:
        """Returns the context, in [0, C), that a token leads to."""

    def row(self, context: int) -> FloatArray:
        """Returns the distribution of the next token, shape ``(V,)``, sum 1."""
