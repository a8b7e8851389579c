# SPDX-License-Identifier: Apache-2.0
"""Sums over the latest minute or day, with which quotas are counted."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["DAY_S", "MINUTE_S", "RollingSum"]

MINUTE_S = 60.0
DAY_S = 86_400.0


class RollingSum:
    """Admits amounts as long as no window of *window_s* seconds holds more than *limit* of them.

    Amounts that come within *grain_s* seconds are kept as one, so that the memory does not depend
    on how many there are. They are forgotten together: never early, and late by a grain at most.
    Not safe for threads, and without its own clock.

    Args:
        limit: Most that any half-open window may hold.
        window_s: Length of the window in seconds.
        grain_s: What may be kept as one, in seconds; 0 keeps every amount by itself.
    """

    def __init__(self, limit: float, window_s: float, grain_s: float = 0.0) -> None:
        self.limit = limit
        self.total = 0
        """The sum of the window, as of the latest call."""
        self._grain_s = grain_s
        self._kept_s = window_s + grain_s
        self._kept: deque[tuple[float, int]] = deque()

    def wait_s(self, amount: int, now_s: float) -> float:
        """Returns after how many seconds *amount* will be admitted: 0 at once, infinity never."""
        while self._kept and self._kept[0][0] + self._kept_s <= now_s:
            self.total -= self._kept.popleft()[1]
        excess = self.total + amount - self.limit
        if excess <= 0:
            return 0.0
        for since_s, kept in self._kept:
            excess -= kept
            if excess <= 0:
                return since_s + self._kept_s - now_s
        return math.inf

    def add(self, amount: int, now_s: float) -> None:
        """Counts *amount*, whether or not it is within the limit."""
        self.total += amount
        since_s = now_s
        if self._kept and now_s - self._kept[-1][0] < self._grain_s:
            since_s, kept = self._kept.pop()
            amount += kept
        self._kept.append((since_s, amount))
