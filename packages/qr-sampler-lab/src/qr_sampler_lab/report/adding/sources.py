# SPDX-License-Identifier: Apache-2.0
"""Scores of several sources side by side, stretch by stretch."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from qr_sampler_lab.analysis import BlockMeans, NetworkVariance
from qr_sampler_lab.tables.columns import Floats, Labels

__all__ = ["SourceNetwork"]

MOST_SOURCES: Final = 64
"""Largest number of sources that are compared."""


class SourceNetwork:
    """The scores of sources in stretches of equally many tokens, the k-th beside the k-th.

    Which source serves a token is settled before its bytes are drawn, so the scores of each are
    independent of those of the others, whatever u decides about the lengths of answers. Stretches
    of time would not do: u decides how many tokens of a source are in one.

    Args:
        tokens: Length of a stretch, >= 2.
    """

    def __init__(self, tokens: int) -> None:
        self.sources: dict[str, BlockMeans] = {}
        """Means of the scores of every source."""
        self._tokens = tokens

    def add(self, scores: Floats, source: Labels) -> None:
        """Adds tokens in the order of time, each with the source that supplied its bytes."""
        for code in np.unique(source.codes).tolist():
            name = source.names[code]
            if name is None:
                continue
            if name not in self.sources and len(self.sources) <= MOST_SOURCES:
                self.sources[name] = BlockMeans(self._tokens)
            if name in self.sources:
                self.sources[name].add(scores[source.codes == code])

    def variance(self) -> NetworkVariance:
        """Returns what the stretches of which several sources have one say together."""
        network = NetworkVariance()
        columns = [means.means for means in self.sources.values()]
        if not 1 < len(columns) <= MOST_SOURCES:
            return network
        rows = sorted(map(len, columns))[-2]
        table = np.full((rows, len(columns)), np.nan)
        for index, column in enumerate(columns):
            table[: len(column), index] = column[:rows] * math.sqrt(self._tokens)
        network.add(table)
        return network
