# SPDX-License-Identifier: Apache-2.0
"""The tokens of a row sorted into bins by their exponent d / T, and the exact mass of each bin."""

from __future__ import annotations

from typing import ClassVar, Final, NamedTuple, Protocol

import numpy as np

from qr_sampler.arrays import Distances, FloatArray, IndexArray, Logits, MassArray
from qr_sampler.selection.fast.descent import Goal, Held, Landing, land
from qr_sampler.selection.masses import MASSLESS, library_masses

__all__ = ["BINS", "FEW", "BinScale", "BinTotals", "BinnedRow", "Bins", "RowBins", "bin_scale"]

BINS: Final = 4096
"""The last of them is for tokens without a mass."""

FEW: Final = 2048
"""So many tokens are sorted in NumPy; where there are more, a descent is faster."""

BINS_PER_NAT: Final = (BINS - 0.5) / -MASSLESS
"""The first exponent without a mass is in the middle of the last bin, however it is rounded."""


class BinScale(NamedTuple):
    """How a distance leads to a bin: raised to *lowest*, times *factor*, truncated."""

    lowest: np.float32
    """The first distance that has no mass."""
    factor: np.float32
    """Negative, so that bins grow as logits fall."""


class BinTotals(NamedTuple):
    """What the bins of one row hold."""

    masses: MassArray
    """Shape ``(BINS,)``."""
    counts: IndexArray
    """Shape ``(BINS,)``, numbers of tokens."""


class BinnedRow(NamedTuple):
    """One row of logits at one temperature."""

    logits: Logits
    """Shape ``(V,)``."""
    maximum: np.float32
    """The largest of them, finite."""
    inverse_temperature: float
    """1 / T."""
    exponent: int
    """The mass of the most probable token is 2**exponent."""

    def distances(self, logits: Logits) -> Distances:
        """Returns the distances of some *logits*, -inf where they are too large for float32."""
        with np.errstate(over="ignore"):
            distance: Distances = logits - self.maximum
        return distance

    def masses(self, logits: Logits) -> FloatArray:
        """Returns the masses of some *logits*."""
        return library_masses(self.distances(logits), self.inverse_temperature, self.exponent)


def bin_scale(inverse_temperature: float) -> BinScale:
    """Returns the scale at a temperature.

    Both steps are monotone even as they are rounded, and truncation is towards zero: a smaller
    logit never gets a smaller bin.
    """
    return BinScale(
        np.float32(MASSLESS / inverse_temperature),
        np.float32(-BINS_PER_NAT * inverse_temperature),
    )


class Bins(Protocol):
    """Sorts rows of V tokens into bins, one row at a time, in memory of its own."""

    def totals(
        self, logits: Logits, maximum: np.float32, inverse_temperature: float, exponent: int
    ) -> BinTotals:
        """Returns what the bins hold; valid until the next call.

        Args:
            logits: Shape ``(V,)``, float32.
            maximum: The largest of them, finite.
            inverse_temperature: 1 / T.
            exponent: The mass of the most probable token is 2**exponent.
        """

    def leading(self, row: BinnedRow, distance: float, mass: int) -> Held:
        """Returns number and mass of the tokens near the maximum.

        Args:
            row: The row.
            distance: How far below the maximum they are at most.
            mass: What each of them has at least.
        """

    def land(self, row: BinnedRow, first: int, last: int, held: Held, goal: Goal) -> Landing:
        """Returns where the running total over the bins from *first* to *last* reaches *goal*.

        It takes a bounded number of passes over their tokens.

        Args:
            row: The row.
            first: The first bin.
            last: The last one.
            held: What they hold.
            goal: From 1 to what the bins hold.
        """

    def token_at(self, logits: Logits, logit: np.float32, place: int) -> int:
        """Returns the token that comes after *place* others among those with the given logit."""


class RowBins(Bins):
    """Bins in NumPy.

    Args:
        vocab_size: Number of tokens V.
    """

    most_sorted: ClassVar[int] = FEW
    """The tokens of a bin are sorted where they are no more than these: for a descent they are too
    few to be faster."""

    def __init__(self, vocab_size: int) -> None:
        self._distance = np.empty(vocab_size, dtype=np.float32)
        self._bins = np.empty(vocab_size, dtype=np.intp)
        self._masses = np.empty(vocab_size, dtype=np.float64)
        self._scratch = np.empty(vocab_size, dtype=np.float64)
        self._wanted = np.empty((2, vocab_size), dtype=np.bool_)

    def totals(
        self, logits: Logits, maximum: np.float32, inverse_temperature: float, exponent: int
    ) -> BinTotals:
        """Returns what the bins hold. Arguments as in :class:`Bins`."""
        scale = bin_scale(inverse_temperature)
        self._fill_distance(logits, maximum, scale)
        np.multiply(self._distance, scale.factor, out=self._bins, casting="unsafe")
        masses = library_masses(
            self._distance, inverse_temperature, exponent, out=self._masses, scratch=self._scratch
        )
        totals = np.bincount(self._bins, weights=masses, minlength=BINS).astype(np.int64)
        return BinTotals(totals, np.bincount(self._bins, minlength=BINS))

    def tokens(
        self,
        logits: Logits,
        maximum: np.float32,
        inverse_temperature: float,
        first: int,
        last: int,
    ) -> IndexArray:
        """Returns the ids of the tokens in the bins from *first* to *last*, ascending.

        Shape ``(N,)``. The other arguments are those of :meth:`totals`.
        """
        scale = bin_scale(inverse_temperature)
        self._fill_distance(logits, maximum, scale)
        np.multiply(self._distance, scale.factor, out=self._distance)
        wanted, below = self._wanted
        np.greater_equal(self._distance, first, out=wanted)
        # As floats the places are not truncated, so that the last bin ends before the next.
        np.less(self._distance, last + 1, out=below)
        return np.flatnonzero(np.logical_and(wanted, below, out=wanted))

    def leading(self, row: BinnedRow, distance: float, mass: int) -> Held:
        """Returns number and mass of some tokens. Arguments as in :class:`Bins`."""
        distances, masses = row.distances(row.logits), row.masses(row.logits)
        kept = masses[(-distances.astype(np.float64) <= distance) & (masses >= mass)]
        return Held(kept.size, int(kept.sum()))

    def land(self, row: BinnedRow, first: int, last: int, held: Held, goal: Goal) -> Landing:
        """Returns where the bins reach *goal*. Arguments as in :class:`Bins`."""
        ids = self.tokens(row.logits, row.maximum, row.inverse_temperature, first, last)
        return land(row.logits[ids], goal, row.masses)

    def token_at(self, logits: Logits, logit: np.float32, place: int) -> int:
        """Returns one of the tokens with the given logit. Arguments as in :class:`Bins`."""
        return int(np.flatnonzero(np.equal(logits, logit, out=self._wanted[0]))[place])

    def _fill_distance(self, logits: Logits, maximum: np.float32, scale: BinScale) -> None:
        # A difference too large for float32 becomes -inf, as for a masked token.
        with np.errstate(over="ignore"):
            np.subtract(logits, maximum, out=self._distance)
        np.maximum(self._distance, scale.lowest, out=self._distance)
