# SPDX-License-Identifier: Apache-2.0
"""A histogram of float32 masses, with proved bounds of what they leave in doubt.

Whether the tokens above some place reach the fraction f of all that is kept depends on the mass A
above it and the mass D below it: they do where (1 - f) A >= f D. In this form an error of A hardly
matters for f near 1 and an error of D hardly for f near 0, and neither counts twice.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from qr_sampler._typing import FloatArray
from qr_sampler.selection.filters import Cut
from qr_sampler.selection.histogram import (
    BINS,
    BINS_PER_NAT,
    HistogramRanking,
    Section,
    above,
)
from qr_sampler.selection.passes import EXP_ERROR, PRODUCT_ERROR

__all__ = ["BoundedHistogram"]

LONGEST_TAIL: Final = 4096
"""Up to so many tokens at the end of the row are sorted where the bins below are in doubt."""

FLOAT64_ERROR: Final = 2.0**-34
"""Bound of the relative error of float64 sums of up to 2**18 positive numbers, one by one."""

ERRORS: Final = 1.01 * (EXP_ERROR + PRODUCT_ERROR * np.arange(1, BINS + 1) / BINS_PER_NAT)
"""Relative error of the masses in each bin; its last exponent is the largest in magnitude."""


class _Balance(NamedTuple):
    """What lies above and below the beginning of each bin, and the end. Shapes ``(BINS + 1,)``."""

    above: FloatArray
    """Mass above."""
    above_error: FloatArray
    """Bound of its error."""
    below: FloatArray
    """Mass below that is kept."""
    below_error: FloatArray
    """Bound of its error."""
    whole: bool
    """Whether all of the row is kept."""

    def bins_in_question(self, fraction: float) -> tuple[int, int]:
        """Returns the first bin that may reach *fraction*, and the first that surely does."""
        lead = (1.0 - fraction) * self.above - fraction * self.below
        doubt = (1.0 - fraction) * self.above_error + fraction * self.below_error
        doubt += FLOAT64_ERROR * (self.above * (1.0 - fraction) + self.below)
        first = int(np.searchsorted((lead + doubt)[1:], 0.0, side="left"))
        last = int(np.searchsorted((lead - doubt)[1:], 0.0, side="left"))
        return min(first, BINS - 1), min(last, BINS - 1)

    def decide(self, section: Section, first: int, last: int, fraction: float) -> Cut | None:
        """Returns the cut after the token of *section* that reaches *fraction*, if it is certain.

        Args:
            section: The bins from *first* to *last*.
            first: Its first bin.
            last: Its last bin.
            fraction: In the open interval (0, 1).
        """
        cumulative = section.tokens.cumulative
        if not cumulative.size:
            return None
        below, below_error = self.below[first], self.below_error[first]
        if self.whole:
            # What is inside the section is known exactly.
            below, below_error = cumulative[-1] + self.below[last + 1], self.below_error[last + 1]
        lacking = fraction * below - (1.0 - fraction) * self.above[first]
        doubt = fraction * below_error + (1.0 - fraction) * self.above_error[first]
        doubt += FLOAT64_ERROR * (self.above[first] * (1.0 - fraction) + below)
        earliest = int(np.searchsorted(cumulative, lacking - doubt, side="left"))
        latest = int(np.searchsorted(cumulative, lacking + doubt, side="left"))
        certain = earliest == latest < cumulative.size
        return section.cut(latest + 1) if certain else None


class BoundedHistogram(HistogramRanking):
    """A histogram of float32 masses. Arguments as in :class:`HistogramRanking`."""

    def _add_up(self) -> None:
        buffers = self._buffers
        buffers.exp(buffers.distance, self._inverse, buffers.weights)
        np.copyto(buffers.masses, buffers.weights)
        weights = np.bincount(buffers.bins, weights=buffers.masses, minlength=BINS)
        self._bins = np.asarray(weights * 2.0**self._exponent, dtype=np.float64)
        self._masses = above(self._bins)
        self._errors = above(self._bins * ERRORS)

    def bounds_above(self, index: int) -> tuple[int, int]:
        """Returns bounds of the mass of the first *index* bins."""
        if not index:
            return 0, 0
        mass = float(self._masses[index])
        # Each exact mass is rounded, by 1/2 at most.
        error = float(self._errors[index]) + 0.5 * self._logits.size
        return max(math.floor(mass - error), 0), math.ceil(mass + error)

    def reaching(self, fraction: float, start: Cut, stop: Cut) -> Cut | None:
        """Returns the shortest prefix that reaches *fraction* of the mass before *stop*.

        Args:
            fraction: In the open interval (0, 1).
            start: Nothing; this ranking offers no other ranges.
            stop: The end of the range.
        """
        if stop.rank < self._logits.size:
            return self._decide(self._balance_before(stop), fraction)
        slack = np.full(BINS + 1, 0.5 * self._logits.size)
        cut = self._decide(self._balance(slack, slack), fraction)
        return self._decide_near_the_end(fraction) if cut is None else cut

    def _decide(self, balance: _Balance, fraction: float) -> Cut | None:
        first, last = balance.bins_in_question(fraction)
        if last > first + 1:
            return None
        return balance.decide(self.section(first, last), first, last, fraction)

    def _decide_near_the_end(self, fraction: float) -> Cut | None:
        """Decides with the tighter bounds that counting the tokens of each bin gives.

        The few tokens at the end of the row are all sorted, so that nothing below is in doubt.
        """
        counts = above(self.counts())
        balance = self._balance(0.5 * counts, 0.5 * (counts[-1] - counts))
        first, _ = balance.bins_in_question(fraction)
        if counts[-1] - counts[first] > LONGEST_TAIL:
            return None
        return balance.decide(self.section(first, BINS - 1), first, BINS - 1, fraction)

    def _balance(self, slack_above: FloatArray, slack_below: FloatArray) -> _Balance:
        """Returns the balance of the whole row. The slack is what rounding the masses may add."""
        below = above(self._bins[::-1])[::-1]
        below_error = above((self._bins * ERRORS)[::-1])[::-1] + slack_below
        # Nothing is below the end.
        below_error[-1] = 0.0
        return _Balance(self._masses, self._errors + slack_above, below, below_error, whole=True)

    def _balance_before(self, stop: Cut) -> _Balance:
        """Returns the balance of what is kept before *stop*."""
        slack = 0.5 * self._logits.size
        width, middle = 0.5 * (stop.highest - stop.lowest), 0.5 * (stop.highest + stop.lowest)
        # The errors add up from bin to bin, so those above a place are no part of those below it.
        below_error = np.maximum(width - self._errors, 0.0) + slack
        below = np.maximum(middle - self._masses, 0.0)
        return _Balance(self._masses, self._errors + slack, below, below_error, whole=False)
