# SPDX-License-Identifier: Apache-2.0
"""Pacing: draws spread over time, so that quotas are neither exceeded nor spent in bursts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from qr_sampler.entropy import SourceLimits

__all__ = ["Pace"]

_MINUTE_S: Final = 62.0
"""Servers that count by the second forget a request up to a second late."""
_DAY_S: Final = 86_400.0


class Pace:
    """Decides when the next of many draws of one size may begin.

    Args:
        limits: What the source accepts over time.
        draw_bytes: Bytes of each draw.
        clock: Monotonic seconds.
    """

    def __init__(self, limits: SourceLimits, draw_bytes: int, clock: Callable[[], float]) -> None:
        self.requests_per_draw = math.ceil(
            draw_bytes / (limits.max_bytes_per_request or draw_bytes)
        )
        """Requests that a draw is split into."""
        self._limits = limits
        self._draw_bytes = draw_bytes
        self._clock = clock
        self._next_s = -math.inf
        quota = limits.max_requests_per_minute
        self._interval_s = _MINUTE_S * self.requests_per_draw / quota if quota else 0.0

    def pause_s(self) -> float:
        """Returns the seconds until the next draw may begin, and schedules that draw."""
        now = self._clock()
        begins_s = max(now, self._next_s)
        self._next_s = begins_s + self._interval_s
        return begins_s - now

    def shortest_s(self, draws: int) -> float:
        """Returns the least time in seconds that the quotas allow for *draws* draws."""
        by_requests = self._interval_s * draws
        daily = self._limits.max_bytes_per_day
        # The quota of the first day is available at once.
        by_bytes = (math.ceil(draws * self._draw_bytes / daily) - 1) * _DAY_S if daily else 0.0
        return max(by_requests, by_bytes)
