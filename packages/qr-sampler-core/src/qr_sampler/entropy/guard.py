# SPDX-License-Identifier: Apache-2.0
"""A source that can fail in any way, made one that fails in time and in one way only."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from qr_sampler.entropy.draw import EntropyDraw, SourceLimits, SourceStatus
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import EntropyUnavailableError

__all__ = ["DroppedBytes", "GuardedSource"]

logger = logging.getLogger("qr_sampler.entropy")


@dataclass(frozen=True, slots=True)
class DroppedBytes:
    """Bytes that a source delivered and that decided nothing."""

    source: str
    """Name of the source."""
    count: int
    """How many."""
    reason: str
    """Why they were dropped."""
    wall_time_ns: int
    """``time.time_ns()`` when they were."""


class GuardedSource(EntropySource):
    r"""Draws from *source*, and is unavailable whenever that hangs, misbehaves or breaks.

    The engine waits for a draw, so nothing that a source does may keep it waiting or stop it. A
    draw that is not done in time has failed. Until the source returns from it, every further draw
    fails at once; what it then delivers is dropped and never serves a later draw.

    A source that :attr:`~qr_sampler.EntropySource.blocks` is called from a thread of its own; any
    other one directly.

    Args:
        source: Where the bytes come from.
        timeout_ms: Longest time that a draw may take.
        on_dropped: Is told of bytes that were delivered for nothing, from any thread.

    Examples:
        >>> from qr_sampler.testing import ConstantEntropySource
        >>> GuardedSource(ConstantEntropySource(7), timeout_ms=1000).draw(2).data
        b'\x07\x07'
    """

    def __init__(
        self,
        source: EntropySource,
        timeout_ms: float,
        on_dropped: Callable[[DroppedBytes], object] | None = None,
    ) -> None:
        self.source = source
        self.jit_class = source.jit_class
        self.conditioning = source.conditioning
        self.origin = source.origin
        self._timeout_ms = timeout_ms
        self._on_dropped = on_dropped
        self._caller: _Caller | None = None
        self._lock = threading.Lock()
        self._reported: set[type[Exception]] = set()

    @property
    def name(self) -> str:
        """The name of the source."""
        return self.source.name

    @property
    def limits(self) -> SourceLimits:
        """The limits of the source."""
        return self.source.limits

    def get_random_bytes(self, n: int) -> bytes:
        """Returns *n* bytes; use :meth:`draw` to learn where from."""
        return self.draw(n).data

    def draw(self, n: int) -> EntropyDraw:
        """Returns *n* bytes, in time.

        Raises:
            EntropyUnavailableError: When the source has not delivered just that, for any reason.
            ValueError: When *n* is negative.
        """
        if n < 0:
            raise ValueError(f"n={n} must not be negative")
        if not self.source.blocks:
            return self._checked(n, _Call(self.source, n).run())
        with self._lock:
            return self._draw_in_time(n)

    def status(self) -> SourceStatus:
        """Returns the status of the source, or for how long it has been hanging."""
        overdue = self._overdue()
        if overdue is not None:
            return SourceStatus(available=False, reason=_still_busy(overdue))
        return self.source.status()

    def probe(self) -> SourceStatus:
        """Returns what one real one-byte draw says; spends that byte."""
        try:
            self.draw(1)
        except EntropyUnavailableError as error:
            return SourceStatus(available=False, reason=error.reason)
        return self.source.status()

    def close(self) -> None:
        """Closes the source, unless it hangs."""
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.stop()
        if caller is None or caller.overdue() is None:
            self.source.close()

    def _draw_in_time(self, n: int) -> EntropyDraw:
        overdue = self._overdue()
        if overdue is not None:
            raise EntropyUnavailableError(self.name, _still_busy(overdue))
        if self._caller is None or not self._caller.alive():
            self._caller = _Caller(self.name, self._late)
        call = _Call(self.source, n)
        if not self._caller.call(call, self._timeout_ms / 1000):
            reason = f"no answer within {self._timeout_ms:g} ms"
            raise EntropyUnavailableError(self.name, reason)
        return self._checked(n, call)

    def _checked(self, n: int, call: _Call) -> EntropyDraw:
        """Returns the draw of a finished *call* if it is what was asked for."""
        if isinstance(call.error, EntropyUnavailableError):
            self._drop(call.error.dropped_bytes, "failed")
            raise call.error
        if call.error is not None:
            self._report(call.error)
            reason = f"{type(call.error).__name__}: {call.error}"
            raise EntropyUnavailableError(self.name, reason) from call.error
        draw = call.result
        if not isinstance(draw, EntropyDraw) or not isinstance(draw.data, bytes):
            reason = f"answered with {type(draw).__name__} instead of bytes; the answer was dropped"
            raise EntropyUnavailableError(self.name, reason)
        if len(draw.data) != n:
            self._drop(len(draw.data), "wrong length")
            reason = f"asked for {n} bytes, received {len(draw.data)}; the answer was dropped"
            raise EntropyUnavailableError(self.name, reason)
        return draw

    def _overdue(self) -> float | None:
        return None if self._caller is None else self._caller.overdue()

    def _late(self, call: _Call) -> None:
        """Drops what *call* has delivered, because nobody waits for it any more."""
        if isinstance(call.result, EntropyDraw):
            self._drop(len(call.result.data), "late")

    def _drop(self, count: int, reason: str) -> None:
        if count and self._on_dropped is not None:
            self._on_dropped(DroppedBytes(self.name, count, reason, time.time_ns()))

    def _report(self, error: Exception) -> None:
        """Says once for each kind of error what only the author of the source can mend."""
        if type(error) not in self._reported:
            self._reported.add(type(error))
            logger.error(
                "entropy source %r has a defect: a source that cannot deliver has to raise "
                "EntropyUnavailableError",
                self.name,
                exc_info=error,
            )


class _Call:
    """One call of a source and what became of it."""

    def __init__(self, source: EntropySource, n: int) -> None:
        self._source = source
        self._n = n
        self.result: object = None
        self.error: Exception | None = None

    def run(self) -> _Call:
        """Makes the call."""
        try:
            self.result = self._source.draw(self._n)
        # Whatever a source raises, the draw has failed, and the engine has to go on. The error is
        # logged, and its text is the reason that the records give.
        except Exception as error:
            self.error = error
        return self


class _Caller:
    """A thread that makes one call at a time.

    Args:
        name: Name of the source.
        on_late: Is told of a call that was finished after its deadline.
    """

    def __init__(self, name: str, on_late: Callable[[_Call], object]) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._state = threading.Lock()
        self._on_late = on_late
        self._done = threading.Event()
        self._deadline: float | None = None
        self._given_up = False
        self._thread = threading.Thread(target=self._work, name=f"qr-sampler-{name}", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether the thread runs; it does not in a process that was forked after it started."""
        return self._thread.is_alive()

    def call(self, call: _Call, timeout_s: float) -> bool:
        """Makes *call* and returns whether it was finished in time."""
        self._done.clear()
        self._deadline = time.monotonic() + timeout_s
        self._calls.put(call)
        self._done.wait(timeout_s)
        with self._state:
            # The call may have been finished between the end of the waiting and this moment.
            if self._done.is_set():
                self._deadline = None
                return True
            self._given_up = True
            return False

    def overdue(self) -> float | None:
        """Returns for how many seconds a call is overdue, ``None`` if none is."""
        with self._state:
            deadline = self._deadline
            if not self._given_up or deadline is None or not self.alive():
                return None
            return time.monotonic() - deadline

    def stop(self) -> None:
        """Ends the thread when it is done with what it does."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()
            with self._state:
                late, self._given_up = self._given_up, False
                self._done.set()
            if late:
                self._on_late(call)


def _still_busy(overdue_s: float) -> str:
    return f"still busy with a draw that was due {1000 * overdue_s:.0f} ms ago"
