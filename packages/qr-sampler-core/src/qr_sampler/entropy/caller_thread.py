# SPDX-License-Identifier: Apache-2.0
"""Calls that are waited for no longer than they may take."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

__all__ = ["CallerThread", "TimedCall"]


class TimedCall:
    """One call of a function and its outcome.

    Args:
        function: What to call, without arguments.
        essential: Whether it is made even if it was given up before it began.
    """

    def __init__(self, function: Callable[[], object], *, essential: bool = False) -> None:
        self._function = function
        self.essential = essential
        self._done = threading.Lock()
        self._done.acquire()
        # Acquired by whichever comes first: finishing the call or giving it up.
        self._outcome = threading.Lock()
        self.result: object = None
        self.error: BaseException | None = None
        self.finished = False
        self.given_up_at: float | None = None

    def run(self) -> TimedCall:
        """Makes the call."""
        try:
            self.result = self._function()
        # Nothing is hidden: the caller reads the error and interprets it. Here it
        # would end the thread, and those who wait for the call would never learn of it.
        except BaseException as error:
            self.error = error
        self.finished = True
        return self

    def hand_over(self) -> bool:
        """Tells the waiting caller that the call is finished; False if it was given up."""
        if not self._outcome.acquire(blocking=False):
            return False
        self._done.release()
        return True

    def give_up(self) -> bool:
        """Stops waiting; returns False if the call was handed over at the last moment."""
        if not self._outcome.acquire(blocking=False):
            return False
        self.given_up_at = time.monotonic()
        return True

    def wait(self, timeout_s: float) -> bool:
        """Returns whether the call was handed over within *timeout_s* seconds."""
        return self._done.acquire(timeout=timeout_s)


class CallerThread:
    """A thread that makes one call after the other, for callers that cannot wait forever.

    While a call is overdue, further ones are refused without being made. The thread starts with the
    first call.

    Args:
        name: Name of the thread.
        on_late: Called with each call that finishes after it was given up.
        purpose: What a call is for, as reasons name it.
    """

    def __init__(
        self, name: str, on_late: Callable[[TimedCall], object], purpose: str = "a draw"
    ) -> None:
        self._name = name
        self._on_late = on_late
        self._purpose = purpose
        self._calls: queue.SimpleQueue[TimedCall | None] = queue.SimpleQueue()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._latest: TimedCall | None = None

    def make(self, function: Callable[[], object], timeout_s: float) -> TimedCall:
        """Returns the finished call of *function*.

        Args:
            function: What to call, without arguments.
            timeout_s: Longest time in seconds that it may take, the wait for its turn included.

        Raises:
            TimeoutError: When it is not finished by then, or an earlier call still is not.
            RuntimeError: When the system has no thread to spare.
        """
        due = time.monotonic() + timeout_s
        if not self._turn.acquire(timeout=timeout_s):
            raise TimeoutError(f"busy with the draws of others for {1000 * timeout_s:.0f} ms")
        try:
            self._refuse_while_overdue()
            return self._made(TimedCall(function), due, timeout_s)
        finally:
            self._turn.release()

    def make_last(self, function: Callable[[], object], timeout_s: float) -> TimedCall:
        """Returns the finished call of *function*, after which the thread ends.

        Unlike any other call it is made even after it was given up.

        Args:
            function: What to call, without arguments.
            timeout_s: Longest time in seconds to wait for it.

        Raises:
            TimeoutError: When it is not finished by then.
            RuntimeError: When the system has no thread to spare.
        """
        due = time.monotonic() + timeout_s
        call = TimedCall(function, essential=True)
        # Whoever has the turn for so long has started the thread.
        has_turn = self._turn.acquire(timeout=timeout_s)
        try:
            if has_turn:
                self._start()
            self._calls.put(call)
            self.stop()
        finally:
            if has_turn:
                self._turn.release()
        if not call.wait(max(due - time.monotonic(), 0.0)) and call.give_up():
            raise TimeoutError(f"no answer within {1000 * timeout_s:.0f} ms")
        return call

    def overdue(self) -> str | None:
        """Returns what to say of the call that is overdue, ``None`` if there is none."""
        call = self._latest
        if call is None or call.given_up_at is None or call.finished:
            return None
        overdue_ms = 1000 * (time.monotonic() - call.given_up_at)
        return f"still busy with {self._purpose} that was due {overdue_ms:.0f} ms ago"

    def stop(self, last: Callable[[], object] | None = None) -> None:
        """Ends the thread after its current call.

        Args:
            last: What to call first; it is not waited for, and its errors are dropped.
        """
        if last is not None:
            self._calls.put(TimedCall(last))
        self._calls.put(None)

    def _made(self, call: TimedCall, due: float, timeout_s: float) -> TimedCall:
        remaining_s = due - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError(f"busy with the draws of others for {1000 * timeout_s:.0f} ms")
        self._start()
        self._latest = call
        self._calls.put(call)
        try:
            in_time = call.wait(remaining_s)
        except BaseException:
            # The waiting caller was interrupted, so the answer has to be dropped here.
            if not call.give_up():
                self._on_late(call)
            raise
        if not in_time and call.give_up():
            raise TimeoutError(f"no answer within {1000 * timeout_s:.0f} ms")
        return call

    def _refuse_while_overdue(self) -> None:
        if (reason := self.overdue()) is not None:
            raise TimeoutError(reason)

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            # A call given up before it began must not be made.
            if call.given_up_at is not None and not call.essential:
                call.finished = True
            elif not call.run().hand_over():
                self._on_late(call)
