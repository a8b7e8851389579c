# SPDX-License-Identifier: Apache-2.0
"""How much may still be asked for: a quota is refused here before the server has to."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from qr_sampler.entropy import SourceLimits

__all__ = ["Quota", "QuotaExceededError"]

_MINUTE_S: Final = 60.0
# Bytes are noted minute by minute, and count until the last of their minute is a day old.
_DAY_S: Final = 86_400.0 + _MINUTE_S


class QuotaExceededError(Exception):
    """A draw would exceed a quota, so nothing was asked for; says which, and what to do.

    Args:
        reason: What it says.
        wait_s: Seconds until the draw fits, ``math.inf`` if it never does.
    """

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Quota:
    """Counts what one process asks for within any minute and any day.

    What was asked for counts, whether or not it arrived: the server counts it, too.

    Args:
        limits: The quotas; ``None`` within them means none.
        clock: Monotonic seconds.
    """

    def __init__(self, limits: SourceLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self.is_limited = (
            limits.max_requests_per_minute is not None or limits.max_bytes_per_day is not None
        )
        """Whether there is any quota."""
        self._clock = clock
        self._lock = threading.Lock()
        self._minute: deque[tuple[float, int]] = deque()
        self._day: deque[tuple[float, int]] = deque()
        self._requests = 0
        self._bytes = 0

    def spend(self, requests: int, payload_bytes: int) -> None:
        """Notes that a draw of so many requests and bytes is about to be made.

        Raises:
            QuotaExceededError: When it must not be made; nothing is noted then.
        """
        if not self.is_limited:
            return
        with self._lock:
            now = self._clock()
            self._requests -= _expired(self._minute, now - _MINUTE_S)
            self._bytes -= _expired(self._day, now - _DAY_S)
            self._check_requests(requests, now)
            self._check_bytes(payload_bytes, now)
            self._minute.append((now, requests))
            self._requests += requests
            self._note_bytes(now, payload_bytes)

    def _check_requests(self, requests: int, now: float) -> None:
        limit = self._limits.max_requests_per_minute
        if limit is None or self._requests + requests <= limit:
            return
        if requests > limit:
            raise QuotaExceededError(
                f"a draw of {requests} requests never fits into {limit:.15g} a minute; draw less "
                "with QR_SAMPLE_COUNT, or raise QR_GRPC_MAX_BYTES_PER_REQUEST if the server allows "
                "it",
                math.inf,
            )
        wait_s = _freed_by(self._minute, self._requests + requests - limit) + _MINUTE_S - now
        raise QuotaExceededError(
            f"{self._requests} of {limit:.15g} requests were made within a minute; "
            f"{math.ceil(wait_s)} s until {requests} more fit, or raise "
            "QR_GRPC_MAX_REQUESTS_PER_MINUTE if the server allows it",
            wait_s,
        )

    def _check_bytes(self, payload_bytes: int, now: float) -> None:
        limit = self._limits.max_bytes_per_day
        if limit is None or self._bytes + payload_bytes <= limit:
            return
        if payload_bytes > limit:
            raise QuotaExceededError(
                f"a draw of {payload_bytes} bytes never fits into {limit} a day; draw less with "
                "QR_SAMPLE_COUNT, or raise QR_GRPC_MAX_BYTES_PER_DAY if the server allows it",
                math.inf,
            )
        wait_s = _freed_by(self._day, self._bytes + payload_bytes - limit) + _DAY_S - now
        raise QuotaExceededError(
            f"{self._bytes} of {limit} bytes were asked for within a day; "
            f"{math.ceil(wait_s)} s until {payload_bytes} more fit, or raise "
            "QR_GRPC_MAX_BYTES_PER_DAY if the server allows it",
            wait_s,
        )

    def _note_bytes(self, now: float, payload_bytes: int) -> None:
        self._bytes += payload_bytes
        # One entry a minute is fine enough, and keeps the day short.
        if self._day and now - self._day[-1][0] < _MINUTE_S:
            began, earlier = self._day.pop()
            self._day.append((began, earlier + payload_bytes))
        else:
            self._day.append((now, payload_bytes))


def _expired(entries: deque[tuple[float, int]], oldest: float) -> int:
    """Forgets the entries before *oldest* and returns what they add up to."""
    total = 0
    while entries and entries[0][0] <= oldest:
        total += entries.popleft()[1]
    return total


def _freed_by(entries: Iterable[tuple[float, int]], excess: float) -> float:
    """Returns when the last of those was made that have to be forgotten to be rid of *excess*."""
    for made_at, amount in entries:
        excess -= amount
        if excess <= 0:
            return made_at
    raise ValueError(f"{excess} more than was ever counted")
