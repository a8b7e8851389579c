# SPDX-License-Identifier: Apache-2.0
"""Extropic's thrml as a tree of p-bits: coupled spins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.errors import MissingExtraError, PsiError
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.tsu.adapter import TSUAdapter, tokens_of_cells
from qr_sampler_tsd.tsu.pbit_tree import tree_biases
from qr_sampler_tsd.tsu.thrml_unit import power_of_two
from qr_sampler_tsd.uniforms import Role, UniformSource

if TYPE_CHECKING:
    from qr_sampler_tsd.tsu._thrml_tree import SpinTreeProgram

__all__ = ["ThrmlTreeTSU", "draws_at_once"]

_MOST_LEVELS: Final = 12
_MOST_TERMS: Final = 2**19
"""Products of spins that are held at a time, beyond what a single draw takes."""

_LARGEST_BIAS: Final = 12.0
"""sigma(-24) is far below half a step of the uniforms, so that such a branch is never taken."""

_GRID: Final = 2.0**23


class ThrmlTreeTSU(TSUAdapter):
    """Draws by coupled spins of thrml, one per level of a binary tree over the cells of F(psi).

    The tree is that of :class:`PBitTreeTSU`, its biases are set by the couplings of a spin to all
    sets of the spins above it, and each spin is set by a uniform that is handed to its sampler;
    thrml's own random key is never read. The token of the tail is chosen by a uniform in float64.

    thrml computes in float32 and sees the upper 23 bits of a uniform, the middle of their interval
    to be exact. What is less probable than 2**-24 at its place in the tree never occurs.

    Raises:
        MissingExtraError: When thrml is not installed.
    """

    def __init__(self) -> None:
        try:
            from qr_sampler_tsd.tsu._thrml_tree import SpinTreeProgram, couplings
        except ImportError as error:
            raise MissingExtraError(
                "ThrmlTreeTSU needs thrml; install it with: pip install thrml"
            ) from error
        self._build, self._couplings = SpinTreeProgram, couplings
        self._programs: dict[int, SpinTreeProgram] = {}

    @property
    def name(self) -> str:
        """``ThrmlTreeTSU``."""
        return "ThrmlTreeTSU"

    def most_uniforms(self, cells: int) -> int:
        """Returns one for each level, and one for the token of the tail."""
        return (cells - 1).bit_length() + 1

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> TokenArray:
        """Returns *batch_size* draws, see :class:`TSUAdapter`."""
        levels = law.ids.size.bit_length()
        if levels > _MOST_LEVELS:
            raise PsiError(
                f"the payload has {law.ids.size + 1} cells, a tree of {_MOST_LEVELS} spins of "
                f"thrml holds {1 << _MOST_LEVELS}; send fewer head tokens"
            )
        if not levels:
            return tokens_of_cells(law, np.zeros(batch_size, dtype=np.int64), uniforms)
        u = uniforms.draw(levels * batch_size, Role.PROPOSAL).reshape(levels, batch_size)
        biases = tree_biases(law).clip(-_LARGEST_BIAS, _LARGEST_BIAS)
        cells = self._leaves(self._couplings(biases), u)
        return tokens_of_cells(law, cells, uniforms)

    def _leaves(self, weights: list[NDArray[np.float32]], u: FloatArray) -> TokenArray:
        levels, batch_size = u.shape
        if levels not in self._programs:
            self._programs[levels] = self._build(levels)
        at_once = draws_at_once(levels)
        pieces = [
            self._piece(self._programs[levels], weights, u[:, first : first + at_once])
            for first in range(0, batch_size, at_once)
        ]
        return np.concatenate(pieces)

    @staticmethod
    def _piece(
        program: SpinTreeProgram, weights: list[NDArray[np.float32]], u: FloatArray
    ) -> TokenArray:
        levels, count = u.shape
        draws = np.full((levels, power_of_two(count)), 0.5, dtype=np.float32)
        draws[:, :count] = (np.floor(u * _GRID) + 0.5) / _GRID
        return program.sample(weights, draws)[:count]


def draws_at_once(levels: int) -> int:
    """Returns how many draws a program makes at a time, a power of two."""
    return max(1, _MOST_TERMS >> levels)
