# SPDX-License-Identifier: Apache-2.0
"""How much of one quota was spent within its latest window."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Tally"]

GRAINS: Final = 60
"""Parts of a window in which amounts are kept together, which bounds what is kept."""

MOST_GRAINS: Final = 4 * GRAINS
"""Number of grains beyond which a tally is not believed; a clock that was set back leaves more than
one window."""


class Tally:
    """Admits amounts as long as no window of *window_s* seconds holds more than *limit* of them.

    Amounts that fall into the same sixtieth of a window are kept as one, and are forgotten when the
    last of them is a window old: never early, and late by a sixtieth at most. An amount that was
    noted by a clock which has since been set back counts until that time has come again. Not safe
    for threads, and without a clock of its own.

    Args:
        limit: Most that any window may hold.
        window_s: Length of the window in seconds.
        grains: Amounts by the number of their grain since the beginning of the clock.
    """

    def __init__(self, limit: int, window_s: float, grains: dict[int, int] | None = None) -> None:
        self.limit = limit
        self.window_s = window_s
        self._grain_s = window_s / GRAINS
        self.grains = dict(grains or {})

    @property
    def longest_wait_s(self) -> float:
        """Longest wait in seconds for what fits, unless the clock was set back."""
        return self.window_s + 2 * self._grain_s

    @property
    def total(self) -> int:
        """What is kept, as of the latest call."""
        return sum(self.grains.values())

    def wait_s(self, amount: int, now_s: float) -> float:
        """Returns after how many seconds *amount* will be admitted: 0 at once, infinity never."""
        self._forget(now_s)
        excess = self.total + amount - self.limit
        if excess <= 0:
            return 0.0
        for grain in sorted(self.grains):
            excess -= self.grains[grain]
            if excess <= 0:
                return self._end_s(grain) - now_s
        return math.inf

    def add(self, amount: int, now_s: float) -> int:
        """Counts *amount*, whether or not it is within the limit, and returns its grain."""
        grain = math.floor(now_s / self._grain_s)
        self.grains[grain] = self.grains.get(grain, 0) + amount
        return grain

    def take_back(self, amount: int, grain: int) -> None:
        """Counts *amount* of *grain* no more, if it still counts."""
        left = self.grains.get(grain, 0) - amount
        if left > 0:
            self.grains[grain] = left
        else:
            self.grains.pop(grain, None)

    def _forget(self, now_s: float) -> None:
        self.grains = {
            grain: amount for grain, amount in self.grains.items() if self._end_s(grain) > now_s
        }

    def _end_s(self, grain: int) -> float:
        return (grain + 1) * self._grain_s + self.window_s
