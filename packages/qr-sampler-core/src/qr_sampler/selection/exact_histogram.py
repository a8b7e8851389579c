# SPDX-License-Identifier: Apache-2.0
"""A histogram of the exact masses of a row. It answers every question but that of typical-p."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler.selection.filters import Cut
from qr_sampler.selection.histogram import BINS, HistogramBuffers, HistogramRanking, above
from qr_sampler.selection.masses import ceil_product, fixed_point_masses

__all__ = ["ExactHistogram", "fill_masses"]

DOUBT: Final = 2.0**-8
"""How near to the middle between two masses a value has to be to be computed again. Two float64
exponentials differ by less than 2**-44 of themselves, which is 2**-9 of a unit at most."""


class ExactHistogram(HistogramRanking):
    """A histogram of exact masses. Arguments as in :class:`HistogramRanking`."""

    def _add_up(self) -> None:
        buffers = self._buffers
        fill_masses(buffers, self._inverse, self._exponent)
        self._masses = above(np.bincount(buffers.bins, weights=buffers.masses, minlength=BINS))

    def bounds_above(self, index: int) -> tuple[int, int]:
        """Returns the mass of the first *index* bins, twice."""
        mass = int(self._masses[index])
        return mass, mass

    def reaching(self, fraction: float, start: Cut, stop: Cut) -> Cut:
        """Returns the shortest prefix that reaches *fraction* of the mass before *stop*.

        Args:
            fraction: In the open interval (0, 1).
            start: Nothing; this ranking offers no other ranges.
            stop: The end of the range.
        """
        goal = ceil_product(fraction, stop.lowest)
        index = int(np.searchsorted(self._masses[1:], goal, side="left"))
        section = self.section(index, index)
        inside = np.searchsorted(section.tokens.cumulative, goal - section.lowest, side="left")
        return section.cut(int(inside) + 1)


def fill_masses(buffers: HistogramBuffers, inverse_temperature: float, exponent: int) -> None:
    """Writes what :func:`fixed_point_masses` returns for a row into ``buffers.masses``.

    A library's exponential gives the same whole number unless the value lies in the middle between
    two of them; only there is the mass computed by its definition.
    """
    masses, scaled = buffers.masses, buffers.scratch
    np.copyto(scaled, buffers.distance)
    buffers.exp(scaled, inverse_temperature, scaled)
    scaled *= 2.0**exponent
    np.rint(scaled, out=masses)
    scaled -= masses
    np.abs(scaled, out=scaled)
    doubtful = np.flatnonzero(np.greater(scaled, 0.5 - DOUBT, out=buffers.wanted))
    distance = buffers.distance[doubtful]
    masses[doubtful] = fixed_point_masses(distance, inverse_temperature, exponent)
