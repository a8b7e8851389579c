# SPDX-License-Identifier: Apache-2.0
"""How long to wait for an answer, learnt from how long the latest ones took."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["AdaptiveDeadline", "DeadlineRule", "percentile99"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineRule:
    """max(floor, multiplier x P99) of a rolling window, capped."""

    window_size: int = 100
    """How many of the latest latencies count, for each size of payload."""
    min_samples: int = 10
    """Below this number of latencies the cap is the deadline."""
    floor_ms: float = 5.0
    """Shortest deadline for a payload of no size."""
    floor_ms_per_mib: float = 20.0
    """Added to that for each mebibyte of payload."""
    multiplier: float = 1.5
    """Factor on the P99."""
    cap_ms: float = 5000.0
    """Longest deadline."""


class AdaptiveDeadline:
    """Deadlines by :class:`DeadlineRule`, apart for payloads of different size.

    Sizes that differ by less than an eighth are one: a serial device takes as much longer as a
    draw is larger, so within a class that is well below what the multiplier leaves.

    An abandoned call counts with the time spent waiting. If only successful calls
    counted, a source that became slower would never be waited for again: the window would hold
    nothing but latencies below its own deadline.

    Threads may share an instance.

    Examples:
        >>> deadline = AdaptiveDeadline(DeadlineRule(min_samples=1))
        >>> deadline.milliseconds(1024)
        5000.0
        >>> deadline.observe(1024, 40.0)
        >>> deadline.milliseconds(1024)
        60.0
    """

    def __init__(self, rule: DeadlineRule) -> None:
        self._rule = rule
        self._windows: dict[int, _Window] = {}

    def milliseconds(self, payload_bytes: int) -> float:
        """Returns how long to wait for an answer of *payload_bytes* bytes."""
        rule = self._rule
        window = self._windows.get(_size_class(payload_bytes))
        if window is None or window.count < rule.min_samples:
            return rule.cap_ms
        floor_ms = rule.floor_ms + rule.floor_ms_per_mib * payload_bytes / 2**20
        wanted_ms = rule.multiplier * window.percentile99
        allowed_ms = wanted_ms if wanted_ms > floor_ms else floor_ms
        return allowed_ms if allowed_ms < rule.cap_ms else rule.cap_ms

    def observe(self, payload_bytes: int, latency_ms: float) -> None:
        """Records how long an answer of *payload_bytes* bytes took, or the wait for it."""
        size_class = _size_class(payload_bytes)
        window = self._windows.get(size_class)
        if window is None:
            window = self._windows.setdefault(size_class, _Window(self._rule))
        window.add(latency_ms)


class _Window:
    """The latest latencies, of which only those that could matter are kept in order.

    Sorting them costs more than a fast draw, and a P99 that asks for less than the floor is as good
    as none.
    """

    def __init__(self, rule: DeadlineRule) -> None:
        self._rule = rule
        self._lock = threading.Lock()
        self._latest: deque[float] = deque()
        self._slow: list[float] = []
        """Those of the latest that ask for more than the floor, in order."""
        self.count = 0
        self.percentile99 = 0.0
        """Their P99, or 0 where it asks for no more than the floor."""

    def add(self, latency_ms: float) -> None:
        rule, latest, slow = self._rule, self._latest, self._slow
        is_slow = rule.multiplier * latency_ms > rule.floor_ms
        # In a full window without slow ones, a latency that is not slow replaces another such one.
        if not (is_slow or slow) and self.count == rule.window_size:
            return
        with self._lock:
            if len(latest) == rule.window_size:
                oldest_ms = latest.popleft()
                if rule.multiplier * oldest_ms > rule.floor_ms:
                    del slow[bisect_left(slow, oldest_ms)]
            latest.append(latency_ms)
            if is_slow:
                insort(slow, latency_ms)
            count = self.count = len(latest)
            # How many are slower than the P99: see _rank99.
            slower = count // 100
            self.percentile99 = slow[-1 - slower] if len(slow) > slower else 0.0


def percentile99(values: Sequence[float]) -> float:
    """Returns the smallest of *values* that at least 99 % of them do not exceed (nearest rank).

    Examples:
        >>> percentile99([float(n) for n in range(1, 101)])
        99.0
        >>> percentile99([3.0])
        3.0
    """
    return sorted(values)[_rank99(len(values))]


def _rank99(count: int) -> int:
    """Returns how many of *count* values in order stand before their P99."""
    # ceil(0.99 n) - 1 in whole numbers: n less the whole hundredths of n.
    return count - count // 100 - 1


def _size_class(payload_bytes: int) -> int:
    """Returns which payloads *payload_bytes* is like: those with the same four leading bits."""
    bits = payload_bytes.bit_length()
    return bits << 4 | payload_bytes >> max(bits - 4, 0)
