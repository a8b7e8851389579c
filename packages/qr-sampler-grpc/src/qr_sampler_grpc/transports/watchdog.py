# SPDX-License-Identifier: Apache-2.0
"""Enforces deadlines on calls that cannot have a time limit of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from operator import itemgetter

__all__ = ["Watchdog"]


class Watchdog:
    """Runs an action for each deadline that passes before it is lifted, the earliest first.

    Threads may share an instance, which belongs to one process. One thread serves all deadlines. It
    starts with the first one, and is woken only when a deadline is earlier than the moment that it
    sleeps to, so setting one usually costs a dictionary entry.
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
            action: Must not fail or block.
        """
        ticket = object()
        with self._changed:
            self._deadlines[ticket] = (deadline_s, action)
            if self._thread is None:
                self._start()
            elif deadline_s < self._wakes_at:
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
        thread = threading.Thread(target=self._run, name="qr-sampler-grpc-watchdog", daemon=True)
        thread.start()
        # It waits for the lock, and finds itself in charge once it has it.
        self._thread = thread

    def _run(self) -> None:
        with self._changed:
            me = threading.current_thread()
            while self._thread is me:
                pending = self._pending()
                self._wakes_at = pending[0][0] if pending else float("inf")
                left_s = self._wakes_at - time.monotonic()
                self._changed.wait(max(left_s, 0.0) if pending else None)
                self._run_what_is_due()

    def _run_what_is_due(self) -> None:
        now = time.monotonic()
        for deadline_s, ticket in self._pending():
            if deadline_s > now:
                return
            watched = self._deadlines.pop(ticket, None)
            if watched is not None:
                watched[1]()

    def _pending(self) -> list[tuple[float, object]]:
        """Returns the deadlines with their tickets, the earliest first."""
        # A copy in one step: deadlines are lifted without the lock.
        watched = self._deadlines.copy()
        return sorted(((at, ticket) for ticket, (at, _) in watched.items()), key=itemgetter(0))
