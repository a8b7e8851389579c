# SPDX-License-Identifier: Apache-2.0
"""Sums over time, thinned out so that a figure can show any number of tokens."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler_lab.tables.columns import Floats, Integers

__all__ = ["MOST_POINTS", "SumPath"]

MOST_POINTS: Final = 2**11
"""Largest number of points of a path."""


class SumPath:
    """The running sum of scores at equally spaced numbers of tokens.

    Exact at every point that it keeps. When there are too many points, every second one goes.
    """

    def __init__(self) -> None:
        self.n = 0
        """Number of scores."""
        self.total = 0.0
        """Their sum."""
        self._every = 1
        self._counts: list[Integers] = []
        self._sums: list[Floats] = []
        self._points = 0

    def add(self, scores: Floats) -> None:
        """Adds scores in order of time."""
        sums = self.total + np.cumsum(scores)
        counts = np.arange(self.n + 1, self.n + 1 + len(scores), dtype=np.int64)
        self.n += len(scores)
        if len(scores):
            self.total = float(sums[-1])
        kept = counts % self._every == 0
        if not kept.any():
            return
        self._counts.append(counts[kept])
        self._sums.append(sums[kept])
        self._points += int(kept.sum())
        while self._points > MOST_POINTS:
            self._thin_out()

    def _thin_out(self) -> None:
        self._every *= 2
        counts, sums = self.points()
        kept = counts % self._every == 0
        self._counts, self._sums = [counts[kept]], [sums[kept]]
        self._points = int(kept.sum())

    def points(self) -> tuple[Integers, Floats]:
        """Returns numbers of scores, ascending, and the sum of that many."""
        if not self._counts:
            return np.empty(0, np.int64), np.empty(0)
        return np.concatenate(self._counts), np.concatenate(self._sums)
