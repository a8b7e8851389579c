# SPDX-License-Identifier: Apache-2.0
"""Scores of several sources side by side, stretch of tokens by stretch."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler_lab.analysis import NetworkVariance
from qr_sampler_lab.tables.columns import Floats, Labels

__all__ = ["SourceNetwork"]

MOST_SOURCES: Final = 64
"""Largest number of sources."""

FEWEST_TOKENS: Final = 10
"""Tokens of a source in a stretch from which on their mean counts as normal."""


class SourceNetwork:
    """The scores of every source in stretches of equally many tokens of all sources.

    Args:
        tokens: Length of a stretch, >= 2.
    """

    def __init__(self, tokens: int) -> None:
        self.variance = NetworkVariance()
        """Of the whole stretches so far."""
        self.names: set[str] = set()
        """The sources."""
        self._tokens = tokens
        self._filled = 0
        self._counts = np.zeros((1, MOST_SOURCES))
        self._sums = np.zeros((1, MOST_SOURCES))

    @property
    def can_be_said(self) -> bool:
        """Whether there are several sources, and not too many."""
        return len(self.names) > 1 and self._sums.shape[1] == MOST_SOURCES

    def add(self, scores: Floats, source: Labels) -> None:
        """Adds tokens in the order of time, each with the source that supplied its bytes."""
        if not len(scores) or self._sums.shape[1] < MOST_SOURCES:
            return
        used = np.unique(source.codes).tolist()
        if used[-1] >= MOST_SOURCES:
            self._counts = self._sums = np.zeros((1, 0))
            return
        self.names.update(str(name) for code in used if (name := source.names[code]) is not None)
        stretch = (self._filled + np.arange(len(scores))) // self._tokens
        room = (int(stretch[-1]) + 1, MOST_SOURCES)
        counts, sums = np.zeros(room), np.zeros(room)
        counts[0], sums[0] = self._counts[0], self._sums[0]
        np.add.at(counts, (stretch, source.codes), 1.0)
        np.add.at(sums, (stretch, source.codes), scores)
        self._filled = (self._filled + len(scores)) % self._tokens
        whole = room[0] if not self._filled else room[0] - 1
        self._take(counts[:whole], sums[:whole])
        self._counts = counts[whole:] if self._filled else np.zeros((1, MOST_SOURCES))
        self._sums = sums[whole:] if self._filled else np.zeros((1, MOST_SOURCES))

    def _take(self, counts: Floats, sums: Floats) -> None:
        enough = counts >= FEWEST_TOKENS
        scores = np.full(counts.shape, np.nan)
        scores[enough] = sums[enough] / np.sqrt(counts[enough])
        # Where a source is alone, nothing goes together.
        self.variance.add(scores[enough.sum(axis=1) > 1])
