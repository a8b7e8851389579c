# SPDX-License-Identifier: Apache-2.0
"""The same test with and without the tokens that a fallback served."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.location import Moments, difference_test, mean_test
from qr_sampler_lab.analysis.results import Alternative, TestResult, checked_numbers

__all__ = ["Sensitivity"]


class Sensitivity:
    """Moments with and without flagged tokens: fallback tokens, or what an exclusion removes.

    Args:
        expected: Mean under the null hypothesis.
        deviation: Standard deviation of one number under the null hypothesis.
    """

    def __init__(self, *, expected: float = 0.0, deviation: float = 1.0) -> None:
        self._expected, self._deviation = expected, deviation
        self.unflagged, self.flagged = Moments(), Moments()

    def add(self, values: ArrayLike, flagged: ArrayLike) -> None:
        """Adds a chunk.

        Args:
            values: Shape ``(B,)``.
            flagged: Shape ``(B,)``, true for tokens of the fallback.

        Raises:
            ConfigError: When the shapes differ or a number is not finite.
        """
        numbers, mask = checked_numbers(values), np.asarray(flagged, dtype=np.bool_)
        if mask.shape != numbers.shape:
            raise ConfigError(f"{numbers.size} values but {mask.size} flags: give one per token")
        self.unflagged.add(numbers[~mask])
        self.flagged.add(numbers[mask])

    def results(
        self, *, alternative: Alternative = "two-sided", about: str = "statistic"
    ) -> tuple[TestResult, ...]:
        """Returns the test of the mean without flagged tokens and with them.

        A third result compares flagged tokens with the others, where there are two of each.

        Raises:
            ConfigError: When no token is unflagged.
        """
        everything = Moments()
        everything.merge(self.unflagged)
        everything.merge(self.flagged)
        flagged = f"{self.flagged.n:,} of {everything.n:,} tokens are flagged"
        tests = [
            mean_test(
                moments,
                expected=self._expected,
                deviation=self._deviation,
                alternative=alternative,
                about=about,
            ).renamed(name, note)
            for moments, name, note in (
                (self.unflagged, "mean_without_flagged", f"{flagged} and left out."),
                (everything, "mean_with_flagged", f"{flagged} and included."),
            )
        ]
        if min(self.flagged.n, self.unflagged.n) > 1:
            compared = difference_test(self.flagged, self.unflagged, about=about)
            tests.append(compared.renamed("flagged_against_others"))
        return tuple(tests)
