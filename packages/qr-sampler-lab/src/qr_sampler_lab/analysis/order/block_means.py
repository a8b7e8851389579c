# SPDX-License-Identifier: Apache-2.0
"""Means of consecutive stretches of tokens: do they differ more than single tokens explain?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.location import Moments
from qr_sampler_lab.analysis.results import TestResult, checked_numbers

__all__ = ["BlockMeans"]


class BlockMeans:
    """One-way analysis of variance of consecutive blocks of equal length (Fisher 1925).

    F is the variance of the block means times the length over the variance inside blocks. A last
    block that is not full is left out.

    Memory: one mean per block.

    Args:
        tokens: Length of a block, >= 2, fixed before the data are seen.
    """

    def __init__(self, tokens: int = 1_000) -> None:
        if tokens < 2:
            raise ConfigError(f"tokens={tokens}: a block needs at least two")
        self.tokens = tokens
        self._means: list[NDArray[np.float64]] = []
        self._inside = 0.0
        self._open = np.empty(0)

    def add(self, values: ArrayLike) -> None:
        """Adds a chunk in order of time. Shape ``(B,)``.

        Raises:
            ConfigError: When a number is not finite.
        """
        numbers = np.append(self._open, checked_numbers(values))
        whole = numbers.size // self.tokens
        # A copy, which does not keep the chunk alive.
        self._open = numbers[whole * self.tokens :].copy()
        if whole:
            blocks = numbers[: whole * self.tokens].reshape(whole, self.tokens)
            means = blocks.mean(axis=1)
            self._means.append(means)
            self._inside += float(((blocks - means[:, np.newaxis]) ** 2).sum())

    @property
    def means(self) -> NDArray[np.float64]:
        """Means of the full blocks in order of time."""
        return np.concatenate(self._means) if self._means else np.empty(0)

    def result(self, *, about: str = "u") -> TestResult:
        """Returns the F test.

        Raises:
            ConfigError: When there are fewer than two full blocks, or the numbers do not vary.
        """
        means = Moments()
        means.add(self.means)
        if means.n < 2 or self._inside == 0.0:
            raise ConfigError(
                f"{means.n} full blocks of {self.tokens} tokens: compare at least two that vary; "
                "shorter blocks need fewer tokens"
            )
        freedom = means.n - 1, means.n * (self.tokens - 1)
        f = means.variance * self.tokens / (self._inside / freedom[1])
        return TestResult(
            name="block_means",
            about=about,
            statistic=f,
            p_value=float(special.fdtrc(*freedom, f)),
            n=means.n * self.tokens,
            effect=f - 1.0,
            effect_name="excess variance of block means / that of single tokens",
            notes=(f"{means.n:,} blocks of {self.tokens:,} tokens.",),
        )
