# SPDX-License-Identifier: Apache-2.0
"""How much, how long and how often: what one client may ask of the machine."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["BoundedReader", "RateLimit", "TooMuchError"]


class TooMuchError(OSError):
    """A client has sent more than a request may have."""


class BoundedReader(io.RawIOBase):
    """Reads from a connection, at most so many bytes until a deadline.

    A time limit for each read alone would let a client send a byte at a time for ever.

    Args:
        connection: The connection, whose timeout is set with each read; left open.
        limit: Most bytes.
        timeout_s: Longest time from now on.
    """

    def __init__(self, connection: socket.socket, *, limit: int, timeout_s: float) -> None:
        super().__init__()
        self._connection = connection
        self._left = limit
        self._deadline = time.monotonic() + timeout_s

    def readable(self) -> bool:
        """Whether it can be read from."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fills *buffer* with what has come, and returns how many bytes that are.

        Raises:
            TooMuchError: Behind the last byte that may come; an end there would be taken for that
                of the request.
            TimeoutError: After the deadline.
        """
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the request has not come in time")
        if not self._left:
            raise TooMuchError("the request is too large")
        self._connection.settimeout(remaining)
        with memoryview(buffer).cast("B") as view:
            count = self._connection.recv_into(view[: self._left])
        self._left -= count
        return count


class RateLimit:
    """At most so many events within any second. Safe to use from several threads.

    Args:
        per_second: Number of events.
        clock: Seconds that never go back.
    """

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._recent: deque[float] = deque(maxlen=per_second)
        self._clock = clock
        self._lock = threading.Lock()

    def admits(self) -> bool:
        """Whether one more event may happen now; it then counts."""
        with self._lock:
            now = self._clock()
            is_full = len(self._recent) == self._recent.maxlen
            if is_full and now - self._recent[0] < 1.0:
                return False
            self._recent.append(now)
            return True
