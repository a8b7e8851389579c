# SPDX-License-Identifier: Apache-2.0
"""Means by entropy, temperature or whatever else was known before the draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.location import Moments
from qr_sampler_lab.analysis.results import TestResult, checked_numbers

__all__ = ["SplitMeans"]


class SplitMeans:
    """Moments of a number in each of several ranges of another one, and whether means differ.

    The other number must have been known before the draw, as entropy and temperature are. The rank
    of a token is not: u selects it, low ranks by small u, so means of u by rank differ under the
    null hypothesis, and far. For ranks, give those of the token before.

    Args:
        edges: Ascending; ranges are ``[-inf, e_0), [e_0, e_1) ... [e_last, inf]``.
        by: What splits, for the notes.
        deviation: Standard deviation of one number under the null hypothesis.

    Raises:
        ConfigError: When edges do not ascend, or tokens would be split by their own rank.
    """

    def __init__(self, edges: ArrayLike, *, by: str, deviation: float = 1.0) -> None:
        self.edges = checked_numbers(edges, name="edges")
        if not self.edges.size or not (np.diff(self.edges) > 0.0).all():
            raise ConfigError(f"edges={self.edges.tolist()}: give at least one, ascending")
        if by == "rank":
            raise ConfigError(
                "by='rank': u selects the rank, so means by rank differ without any effect; split "
                "by the rank of the token before ('previous_rank'), or by entropy"
            )
        self.by, self._deviation = by, deviation
        self.parts = tuple(Moments() for _ in range(self.edges.size + 1))

    def add(self, values: ArrayLike, known_before: ArrayLike) -> None:
        """Adds a chunk.

        Args:
            values: What is averaged. Shape ``(B,)``.
            known_before: What splits. Shape ``(B,)``.

        Raises:
            ConfigError: When the shapes differ or a number is not finite.
        """
        numbers, keys = checked_numbers(values), checked_numbers(known_before, name=self.by)
        if keys.shape != numbers.shape:
            raise ConfigError(f"{numbers.size} values but {keys.size} of {self.by}: give one each")
        part: NDArray[np.intp] = np.searchsorted(self.edges, keys, side="right")
        for index, moments in enumerate(self.parts):
            moments.add(numbers[part == index])

    def result(self, *, about: str = "statistic") -> TestResult:
        """Returns the chi-square test of equal means: ``sum_k n_k (m_k - m)**2 / sigma**2``.

        (Analysis of variance with a known variance.)

        Raises:
            ConfigError: When fewer than two ranges hold tokens.
        """
        filled = [moments for moments in self.parts if moments.n]
        if len(filled) < 2:
            raise ConfigError(f"all tokens lie in one range of {self.by}: choose other edges")
        n = np.array([moments.n for moments in filled], dtype=np.float64)
        means = np.array([moments.mean for moments in filled])
        mean = np.average(means, weights=n)
        statistic = float((n * (means - mean) ** 2).sum()) / self._deviation**2
        shown = ", ".join(f"{each.mean:.4f} of {each.n:,}" for each in filled)
        return TestResult(
            name=f"split_by_{self.by}",
            about=about,
            statistic=statistic,
            p_value=float(special.chdtrc(len(filled) - 1, statistic)),
            n=int(n.sum()),
            effect=float(means.max() - means.min()),
            effect_name="largest mean of a range - smallest",
            exploratory=True,
            notes=(f"Means by {self.by}: {shown}.",),
        )
