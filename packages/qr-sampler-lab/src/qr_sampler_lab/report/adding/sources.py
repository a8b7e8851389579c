# SPDX-License-Identifier: Apache-2.0
"""Scores of several sources side by side, stretch by stretch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from qr_sampler_lab.analysis import BlockMeans, NetworkVariance, TestResult
from qr_sampler_lab.tables.columns import Floats, Labels

__all__ = ["SourceNetwork"]

MOST_SOURCES: Final = 64
"""Largest number of sources that are compared."""

FEWEST_STRETCHES: Final = 10
"""Stretches of a source from which on its mean and deviation are known well enough."""


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

    def network_variance(self) -> TestResult:
        """Returns whether scores of all sources together scatter more widely than ideal ones.

        Raises:
            ConfigError: When no two sources have a stretch of tokens.
        """
        return self._network([means.means for means in self._compared()]).netvar_test()

    def pair_products(self) -> TestResult:
        """Returns whether sources go up and down together: their correlation.

        Scores are standardised by their own mean and deviation. Beside a source that is biased or
        noisy, products of the ideal scores of another would scatter widely without any connection.

        Raises:
            ConfigError: When no two sources have ten stretches of tokens.
        """
        columns = [means.means for means in self._compared()]
        varied = [each for each in columns if len(each) >= FEWEST_STRETCHES and np.ptp(each) > 0.0]
        standard = [(each - each.mean()) / each.std(ddof=1) for each in varied]
        return self._network([each / math.sqrt(self._tokens) for each in standard]).pairs_test()

    def _compared(self) -> list[BlockMeans]:
        sources = list(self.sources.values())
        return sources if 1 < len(sources) <= MOST_SOURCES else []

    def _network(self, columns: Sequence[Floats]) -> NetworkVariance:
        """Returns the stretches of which several sources have one."""
        network = NetworkVariance()
        if len(columns) > 1:
            rows = sorted(map(len, columns))[-2]
            table = np.full((rows, len(columns)), np.nan)
            for index, column in enumerate(columns):
                table[: len(column), index] = column[:rows] * math.sqrt(self._tokens)
            network.add(table)
        return network
