# SPDX-License-Identifier: Apache-2.0
"""The contract of a thermodynamic sampling unit, TSU: what draws tokens from F(psi)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.psi_fields import Psi
from qr_sampler_tsd.uniforms import Role, UniformSource

__all__ = ["TSUAdapter", "TSUSamples", "tokens_of_cells"]


class TSUSamples(NamedTuple):
    """Tokens that a unit has drawn."""

    tokens: TokenArray
    """Shape ``(B,)``."""
    log_q: FloatArray
    """Shape ``(B,)``: ``log q`` of each token under F(psi), natural logarithm."""


class TSUAdapter(ABC):
    """A sampling unit: draws tokens from F(psi), or as near to it as its device comes.

    ``log_q`` is always that of F(psi), also where the device has another distribution. Acceptance
    and residual then refer to the same q, a verifier needs to know nothing of devices, and its
    output differs from the target by no more than the device differs from F(psi), see
    :mod:`qr_sampler_tsd.gate`. Acceptance by the distribution of the device would not make up for
    it: the output is exact only when the residual is of that distribution, too.

    Must be overridden: :attr:`name`, :meth:`most_uniforms` and :meth:`draw_tokens`. May be:
    :meth:`law`. Every random number comes from the :class:`UniformSource` of the call, for
    :attr:`Role.PROPOSAL`. A unit keeps no state between calls but caches; one that does not lock
    them serves one thread.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports call the unit, its settings included."""

    def sample_categorical(self, psi: Psi, batch_size: int, uniforms: UniformSource) -> TSUSamples:
        """Returns *batch_size* independent draws.

        Args:
            psi: The payload.
            batch_size: How many, B, at least 1.
            uniforms: Supplies all randomness.

        Raises:
            ValueError: When *batch_size* is below 1.
            PsiError: When the unit cannot hold *psi*, or an exclusion leaves it nothing.
            MixingError: When the unit runs a Markov chain too short for *psi*.
            EntropyUnavailableError: When *uniforms* cannot deliver.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        law = psi.law()
        tokens = self.draw_tokens(law, batch_size, uniforms)
        return TSUSamples(tokens, law.log_probs_of(tokens))

    def law(self, psi: Psi) -> HeadTailLaw | None:
        """Returns the device's actual distribution for *psi*, ``None`` where it is unknown."""
        return None

    @abstractmethod
    def most_uniforms(self, cells: int) -> int:
        """Returns the most uniforms that one draw takes, so that they can be drawn beforehand.

        Args:
            cells: K + 1: the head tokens of the payload, and its tail.
        """

    @abstractmethod
    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> TokenArray:
        """Returns *batch_size* independent draws that shall follow *law*, shape ``(B,)``.

        :meth:`sample_categorical` calls it and adds ``log q``.
        """


def tokens_of_cells(law: HeadTailLaw, cells: TokenArray, uniforms: UniformSource) -> TokenArray:
    """Returns the tokens of *cells*, each draw of the tail cell by one more uniform.

    Args:
        law: Says what the cells are.
        cells: Shape ``(B,)``, 0 to K: a place in :attr:`HeadTailLaw.ids`, K for the tail.
        uniforms: Drawn from once, and only when the tail was hit.
    """
    tokens: TokenArray = np.append(law.ids, 0)[cells]
    beyond = cells == law.ids.size
    hits = int(np.count_nonzero(beyond))
    if hits:
        # Below 2**31 tokens the product with a uniform of 53 bits cannot round up to n.
        ranks = (uniforms.draw(hits, Role.PROPOSAL) * law.tail_count).astype(np.int64)
        tokens[beyond] = law.tail_tokens(ranks)
    return tokens
