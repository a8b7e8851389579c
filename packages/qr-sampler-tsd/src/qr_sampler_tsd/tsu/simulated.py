# SPDX-License-Identifier: Apache-2.0
"""The exact unit: F(psi) itself, in O(K)."""

from __future__ import annotations

import numpy as np

from qr_sampler_tsd._typing import TokenArray
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.psi_fields import Psi
from qr_sampler_tsd.tsu.adapter import TSUAdapter
from qr_sampler_tsd.uniforms import Role, UniformSource

__all__ = ["SimTSU"]


class SimTSU(TSUAdapter):
    """Draws by the inverse distribution function in float64: one uniform per token, O(K).

    Examples:
        >>> from qr_sampler_tsd import PsiTopK, SeededUniforms
        >>> psi = PsiTopK(
        ...     ids=[5, 2], scores_q8=[0, -10], scale=0.1, zero_point=0, tau=1.0, epsilon=0.125,
        ...     vocab_size=8,
        ... )
        >>> SimTSU().sample_categorical(psi, 6, SeededUniforms(1)).tokens.tolist()
        [0, 5, 2, 5, 5, 3]
    """

    @property
    def name(self) -> str:
        """``SimTSU``."""
        return "SimTSU"

    def law(self, psi: Psi) -> HeadTailLaw:
        """Returns F(psi)."""
        return psi.law()

    def most_uniforms(self, cells: int) -> int:
        """Returns 1."""
        return 1

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> TokenArray:
        """Returns *batch_size* draws, see :class:`TSUAdapter`."""
        if batch_size == 1:
            return np.array([law.select_one(uniforms.draw_one(Role.PROPOSAL))])
        return law.select(uniforms.draw(batch_size, Role.PROPOSAL))
