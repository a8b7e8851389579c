# SPDX-License-Identifier: Apache-2.0
"""What rows need that the loops over a batch leave open, in compiled loops over one row."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from qr_sampler.arrays import Distances, FloatArray, Logits
from qr_sampler.selection.fast.passes import RankingPasses
from qr_sampler_accel.host.arithmetic.masses import compiled_masses, mass_memory
from qr_sampler_accel.host.arithmetic.moments import moment_memory, row_weight
from qr_sampler_accel.host.bins.bins import CompiledBins
from qr_sampler_accel.host.bins.energies import CompiledEnergies

__all__ = ["CompiledPasses"]


class CompiledPasses(RankingPasses):
    """Passes over rows of V tokens, and their working memory.

    Args:
        vocab_size: Number of tokens V.
    """

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._mass_memory = mass_memory()

    @cached_property
    def bins(self) -> CompiledBins:
        """Bins of rows of V tokens."""
        return CompiledBins(self.vocab_size)

    @cached_property
    def energies(self) -> CompiledEnergies:
        """Energies of rows of V tokens."""
        return CompiledEnergies(self.vocab_size)

    def weight(self, logits: Logits, maximum: np.float32, inverse_temperature: float) -> float:
        """Returns the sum of exp(d / T) over one row."""
        return float(row_weight(logits, maximum, inverse_temperature, *moment_memory()))

    def masses(self, distance: Distances, inverse_temperature: float, exponent: int) -> FloatArray:
        """Returns what :func:`fixed_point_masses` returns."""
        return compiled_masses(distance, inverse_temperature, exponent, self._mass_memory)
