# SPDX-License-Identifier: Apache-2.0
"""How much an account may draw over time: sums over a rolling window, with the time to wait."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from qr_sampler.errors import ConfigError

__all__ = ["Meters", "RollingSum"]

_MINUTE_S: Final = 60.0
_DAY_S: Final = 86_400.0
_REQUEST_SLOTS: Final = 60
_BYTE_SLOTS: Final = 1440


class RollingSum:
    """Admits amounts as long as no window of *window_s* seconds holds more than *limit* of them.

    Amounts are kept per slot, a fraction of the window, so that the memory does not depend on how
    many there are. An amount is forgotten with its slot: never early, and late by one slot at most.
    Not safe for threads, and without a clock of its own.

    Args:
        limit: Most that any half-open window may hold, at least 1.
        window_s: Length of the window in seconds.
        slots: Number of slots in a window.
    """

    def __init__(self, limit: int, window_s: float, slots: int) -> None:
        self.limit = limit
        self._slot_s = window_s / slots
        self._slots = slots
        self._kept: deque[tuple[int, int]] = deque()
        self._total = 0

    def wait_s(self, amount: int, now_s: float) -> float:
        """Returns after how many seconds *amount* will be admitted: 0 at once, infinity never."""
        self._forget(now_s)
        excess = self._total + amount - self.limit
        if excess <= 0:
            return 0.0
        for slot, kept in self._kept:
            excess -= kept
            if excess <= 0:
                return (slot + self._slots + 1) * self._slot_s - now_s
        return math.inf

    def add(self, amount: int, now_s: float) -> None:
        """Counts *amount*, whether or not it is within the limit."""
        slot = math.floor(now_s / self._slot_s)
        self._total += amount
        if self._kept and self._kept[-1][0] >= slot:
            slot, kept = self._kept.pop()
            amount += kept
        self._kept.append((slot, amount))

    def _forget(self, now_s: float) -> None:
        while self._kept and (self._kept[0][0] + self._slots + 1) * self._slot_s <= now_s:
            self._total -= self._kept.popleft()[1]


class Meters:
    """Counts the requests and the bytes of each account; threads may share an instance.

    A request is counted when it is admitted, before anything is measured, and stays counted when
    the measurement fails. A refused request is not counted.

    Args:
        requests_per_minute: Most requests of one account in any minute; ``None`` means unlimited.
        bytes_per_day: Most bytes of one account in any 24 hours; ``None`` means unlimited.
        clock: Returns seconds that never run backwards.

    Raises:
        ConfigError: When a limit is less than 1.
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        bytes_per_day: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (
            ("requests_per_minute", requests_per_minute),
            ("bytes_per_day", bytes_per_day),
        ):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} admits nothing; use 1 or more, or leave it out")
        self.requests_per_minute = requests_per_minute
        self.bytes_per_day = bytes_per_day
        self._clock = clock
        self._accounts: dict[str, tuple[RollingSum | None, RollingSum | None]] = {}
        self._lock = threading.Lock()

    def admit(self, account: str, n: int) -> tuple[float, str]:
        """Counts one request for *n* bytes, or returns why it is refused.

        Returns:
            The seconds after which the request would be admitted and the limit that it meets:
            ``(0.0, "")`` for a request that is admitted and counted.
        """
        if self.requests_per_minute is None and self.bytes_per_day is None:
            return 0.0, ""
        with self._lock:
            requests, volume = self._of(account)
            now_s = self._clock()
            waits = (
                (requests.wait_s(1, now_s) if requests else 0.0, "requests a minute", requests),
                (volume.wait_s(n, now_s) if volume else 0.0, "bytes a day", volume),
            )
            wait_s, unit, meter = max(waits, key=lambda wait: wait[0])
            if wait_s > 0.0:
                return wait_s, f"{meter.limit if meter else 0} {unit}"
            self._count(requests, volume, n, now_s)
            return 0.0, ""

    def _of(self, account: str) -> tuple[RollingSum | None, RollingSum | None]:
        if account not in self._accounts:
            rate, volume = self.requests_per_minute, self.bytes_per_day
            self._accounts[account] = (
                None if rate is None else RollingSum(rate, _MINUTE_S, _REQUEST_SLOTS),
                None if volume is None else RollingSum(volume, _DAY_S, _BYTE_SLOTS),
            )
        return self._accounts[account]

    @staticmethod
    def _count(
        requests: RollingSum | None, volume: RollingSum | None, n: int, now_s: float
    ) -> None:
        if requests is not None:
            requests.add(1, now_s)
        if volume is not None:
            volume.add(n, now_s)
