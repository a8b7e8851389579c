# SPDX-License-Identifier: Apache-2.0
"""Ends what has taken too long, for calls that cannot be given a time limit of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Watchdog"]


class Watchdog:
    """Runs an action for each deadline that passes before it is lifted.

    One thread serves all deadlines. It starts with the first one, and is woken only when a deadline
    is earlier than the moment that it sleeps to, so setting one usually costs a dictionary entry.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadlines: dict[object, tuple[float, Callable[[], object]]] = {}
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None

    def watch(self, deadline_s: float, action: Callable[[], object]) -> object:
        """Returns a ticket for :meth:`lift`; *action* is run at *deadline_s* unless it was lifted.

        Args:
            deadline_s: Seconds of ``time.monotonic()``.
            action: Must not fail, block or use this watchdog.
        """
        ticket = object()
        with self._changed:
            self._deadlines[ticket] = (deadline_s, action)
            if self._thread is None:
                self._start()
            if deadline_s < self._wakes_at:
                self._changed.notify()
        return ticket

    def lift(self, ticket: object) -> None:
        """Forgets a deadline; does nothing when it has passed."""
        self._deadlines.pop(ticket, None)

    def close(self) -> None:
        """Ends the thread; deadlines that are left never pass. The watchdog can be used again."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._deadlines.clear()
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        self._wakes_at = float("inf")
        self._thread = threading.Thread(
            target=self._run, name="qr-sampler-grpc-watchdog", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        with self._changed:
            me = threading.current_thread()
            while self._thread is me:
                now = time.monotonic()
                due = [ticket for ticket, (at, _) in self._pending() if at <= now]
                for ticket in due:
                    _, action = self._deadlines.pop(ticket, (0.0, _nothing))
                    action()
                self._wakes_at = min((at for _, (at, _) in self._pending()), default=float("inf"))
                left_s = self._wakes_at - time.monotonic()
                self._changed.wait(None if left_s == float("inf") else max(left_s, 0.0))

    def _pending(self) -> list[tuple[object, tuple[float, Callable[[], object]]]]:
        # A copy in one step: deadlines are lifted without the lock.
        return list(self._deadlines.items())


def _nothing() -> None:
    return
