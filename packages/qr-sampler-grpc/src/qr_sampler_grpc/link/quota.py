# SPDX-License-Identifier: Apache-2.0
"""The client's own quotas: a draw beyond them is refused before the server has to."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from qr_sampler.entropy import SourceLimits
from qr_sampler_grpc.rolling_sum import DAY_S, MINUTE_S, RollingSum

__all__ = ["Quota", "QuotaExceededError"]


class _Words(NamedTuple):
    """How messages name a quota."""

    unit: str
    window: str
    spent: str
    split: str
    """The setting that makes a draw fit."""
    raised: str
    """The setting that names the quota."""


_REQUESTS: Final = _Words(
    "requests",
    "a minute",
    "were made within",
    "QR_GRPC_MAX_BYTES_PER_REQUEST",
    "QR_GRPC_MAX_REQUESTS_PER_MINUTE",
)
_BYTES: Final = _Words(
    "bytes",
    "a day",
    "were asked for within",
    "QR_GRPC_MAX_BYTES_PER_DAY",
    "QR_GRPC_MAX_BYTES_PER_DAY",
)


class QuotaExceededError(Exception):
    """A draw would exceed a quota, so nothing was asked for; names it and states what to do.

    Args:
        reason: The message.
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
        self._clock = clock
        self._lock = threading.Lock()
        self._requests = _sum_of(limits.max_requests_per_minute, MINUTE_S)
        # Noted minute by minute, which keeps the day short.
        self._bytes = _sum_of(limits.max_bytes_per_day, DAY_S, MINUTE_S)
        self.is_limited = bool(self._requests or self._bytes)
        """Whether there is any quota."""

    def spend(self, requests: int, payload_bytes: int) -> None:
        """Notes that a draw of so many requests and bytes is about to be made.

        Raises:
            QuotaExceededError: When it must not be made; nothing is noted then.
        """
        with self._lock:
            now_s = self._clock()
            spent = [
                (kept, amount, words)
                for kept, amount, words in (
                    (self._requests, requests, _REQUESTS),
                    (self._bytes, payload_bytes, _BYTES),
                )
                if kept is not None
            ]
            for kept, amount, words in spent:
                _check(kept, amount, kept.wait_s(amount, now_s), words)
            for kept, amount, _ in spent:
                kept.add(amount, now_s)


def _sum_of(limit: float | None, window_s: float, grain_s: float = 0.0) -> RollingSum | None:
    return None if limit is None else RollingSum(limit, window_s, grain_s)


def _check(kept: RollingSum, amount: int, wait_s: float, words: _Words) -> None:
    limit = f"{kept.limit:.15g}"
    if wait_s == math.inf:
        raise QuotaExceededError(
            f"a draw of {amount} {words.unit} never fits into {limit} {words.window}; draw less "
            f"with QR_SAMPLE_COUNT, or raise {words.split} if the server allows it",
            wait_s,
        )
    if wait_s > 0.0:
        raise QuotaExceededError(
            f"{kept.total} of {limit} {words.unit} {words.spent} {words.window}; "
            f"{math.ceil(wait_s)} s until {amount} more fit, or raise {words.raised} if the "
            "server allows it",
            wait_s,
        )
