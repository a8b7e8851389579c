# SPDX-License-Identifier: Apache-2.0
"""Ends calls whose clients keep the server waiting for too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import grpc

__all__ = ["Wait", "WaitLimits"]

_MESSAGE_S: Final = 5.0
"""How long a call may hold a thread before its message is there. Clients send both together."""
_POLL_S: Final = 0.5
"""How much later than its limit a wait may be ended."""


class Wait:
    """One wait; ends with its ``with`` block or with :meth:`end`."""

    __slots__ = ("_waits", "give_up", "until_s")

    def __init__(self, waits: set[Wait], until_s: float, give_up: Callable[[], object]) -> None:
        self._waits = waits
        self.until_s = until_s
        self.give_up = give_up
        waits.add(self)

    def end(self) -> None:
        """Ends the wait. May be called more than once."""
        self._waits.discard(self)

    def __enter__(self) -> Wait:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()


class WaitLimits:
    """Watches all waits from one thread: a timer for each call would cost a thread each."""

    def __init__(self) -> None:
        # Adding to a set, discarding and copying are atomic.
        self._waits: set[Wait] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="qr-entropy-waits", daemon=True)
        self._thread.start()

    def limit(self, seconds: float, give_up: Callable[[], object]) -> Wait:
        """Returns a wait that has begun; *give_up* is called once if it lasts longer.

        Args:
            seconds: How long it may last.
            give_up: Makes the wait end; returns at once and raises nothing.
        """
        return Wait(self._waits, time.monotonic() + seconds, give_up)

    def only_message(
        self, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> bytes | None:
        """Returns the message of a call that has one; ``None`` when its client sends none.

        Raises:
            grpc.RpcError: When the client goes, or takes too long; gRPC handles it silently.
        """
        with self.limit(_MESSAGE_S, context.cancel):
            return next(messages, None)

    def stop(self) -> None:
        """Ends the thread; waits under way are left alone."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_POLL_S):
            now_s = time.monotonic()
            for wait in self._waits.copy():
                if wait.until_s < now_s:
                    wait.end()
                    wait.give_up()
