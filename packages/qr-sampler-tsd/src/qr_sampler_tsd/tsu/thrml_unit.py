# SPDX-License-Identifier: Apache-2.0
"""Extropic's thrml as a sampling unit: F(psi) as one categorical node."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import numpy as np

from qr_sampler_tsd._typing import FloatArray, TokenArray
from qr_sampler_tsd.errors import MissingExtraError, PsiError
from qr_sampler_tsd.law import HeadTailLaw
from qr_sampler_tsd.tsu.adapter import TSUAdapter
from qr_sampler_tsd.uniforms import Role, UniformSource

if TYPE_CHECKING:
    from qr_sampler_tsd.tsu._thrml_program import CategoricalProgram

__all__ = ["ThrmlTSU", "power_of_two"]

_MOST_STATES: Final = 2**16
_FEWEST_STATES: Final = 64
_GRID: Final = 2.0**24


class ThrmlTSU(TSUAdapter):
    """Draws by thrml, one uniform per token.

    A node has the K head tokens and the tail as states, the log weights of F(psi) as parameters,
    and selects its state by the uniform that is handed to its sampler; thrml's own random key is
    never read. Which token of the tail it is follows from the same uniform in float64.

    thrml computes in float32 and sees the upper 24 bits of a uniform. A state is therefore another
    than that of :class:`SimTSU` for the same uniform only where that is within about K 2**-24 of a
    step of the distribution function; the gate measures what that amounts to.

    Programs are built once per number of states, rounded up to a power of two, and given new
    weights for each payload. They are compiled once per number of draws, rounded up as well; their
    memory grows with the sum of states and draws.

    Args:
        largest_batch: Draws of the largest program, a power of two; larger batches are split.
        programs_kept: Programs that are kept, the least recently used dropped first.

    Raises:
        MissingExtraError: When thrml is not installed.
        ValueError: When an argument is out of range.
    """

    def __init__(self, largest_batch: int = 8192, programs_kept: int = 16) -> None:
        if largest_batch < 1 or largest_batch & (largest_batch - 1):
            raise ValueError(f"largest_batch={largest_batch} must be a power of two")
        if programs_kept < 1:
            raise ValueError(f"programs_kept={programs_kept} must be at least 1")
        try:
            from qr_sampler_tsd.tsu._thrml_program import NO_STATE, CategoricalProgram
        except ImportError as error:
            raise MissingExtraError(
                "ThrmlTSU needs thrml; install it with: pip install thrml"
            ) from error
        self._build = CategoricalProgram
        self._no_state = NO_STATE
        self._largest_batch = largest_batch
        self._programs_kept = programs_kept
        self._programs: OrderedDict[int, CategoricalProgram] = OrderedDict()

    @property
    def name(self) -> str:
        """``ThrmlTSU``."""
        return "ThrmlTSU"

    def most_uniforms(self, cells: int) -> int:
        """Returns 1."""
        return 1

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> TokenArray:
        """Returns *batch_size* draws, see :class:`TSUAdapter`."""
        cells = law.ids.size + 1
        if cells > _MOST_STATES:
            raise PsiError(
                f"the payload has {cells} cells, a node of thrml holds {_MOST_STATES}; send fewer "
                "head tokens"
            )
        u = uniforms.draw(batch_size, Role.PROPOSAL)
        log_weights = self._log_weights(law)
        pieces = range(0, batch_size, self._largest_batch)
        states = [self._states(log_weights, u[at : at + self._largest_batch]) for at in pieces]
        return law.tokens_at(np.concatenate(states), u)

    def _log_weights(self, law: HeadTailLaw) -> FloatArray:
        cells = law.cell_probs
        padded = np.full(max(_FEWEST_STATES, power_of_two(cells.size)), self._no_state)
        with np.errstate(divide="ignore"):
            padded[: cells.size] = np.maximum(np.log(cells), self._no_state)
        return padded

    def _states(self, log_weights: FloatArray, u: FloatArray) -> TokenArray:
        draws = np.zeros(power_of_two(u.size), dtype=np.float32)
        # Truncated, as rounding could make it 1.
        draws[: u.size] = np.floor(u * _GRID) / _GRID
        program = self._program(log_weights.size)
        return program.sample(log_weights.astype(np.float32), draws)[: u.size]

    def _program(self, states: int) -> CategoricalProgram:
        if states not in self._programs:
            self._programs[states] = self._build(states)
        self._programs.move_to_end(states)
        if len(self._programs) > self._programs_kept:
            self._programs.popitem(last=False)
        return self._programs[states]


def power_of_two(number: int) -> int:
    """Returns the least power of two that is at least *number*."""
    return 1 << (number - 1).bit_length()
