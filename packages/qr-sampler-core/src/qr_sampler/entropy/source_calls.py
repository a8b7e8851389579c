# SPDX-License-Identifier: Apache-2.0
"""The calls that one process makes of one source; none is waited for longer than it may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from qr_sampler.entropy.caller_thread import CallerThread, TimedCall
from qr_sampler.entropy.draw import EntropyDraw
from qr_sampler.entropy.intake import FailedDraw
from qr_sampler.entropy.patience import AttemptFailure, Patience

__all__ = ["SourceCalls"]

STATUS_TIMEOUT_S: Final = 1.0
"""Longest time in seconds that a status may take, which touches no device."""

_T = TypeVar("_T")


class SourceCalls:
    """Draws in one thread and asks for the status in another, even during a draw.

    The threads start with their first calls. While a call is overdue, further ones of its thread
    are refused without being made.

    Args:
        name: Name of the source.
        timeout_s: Longest time in seconds that a call may take.
        patience: Bounds the draws further, by what it has learnt about the source.
        on_late: Called with each call that finishes after it was abandoned.
    """

    def __init__(
        self,
        name: str,
        timeout_s: float,
        patience: Patience,
        on_late: Callable[[TimedCall], object],
    ) -> None:
        self._timeout_s = timeout_s
        self._patience = patience
        self._drawing = CallerThread(f"qr-sampler-{name}", on_late)
        self._watching = CallerThread(f"qr-sampler-{name}-status", on_late, "a status")

    def overdue(self) -> str | None:
        """Returns what to say of the draw that is overdue, ``None`` if there is none."""
        return self._drawing.overdue()

    def draw(
        self, n: int, question: Callable[[], EntropyDraw | FailedDraw]
    ) -> EntropyDraw | FailedDraw:
        """Returns the draw of *n* bytes that *question* asks for, as long as patience lasts.

        Raises:
            CircuitOpenError: When the source is being left alone.
            TimeoutError: When it does not end in time, or an earlier one still has not.
            RuntimeError: When the system has no thread to spare.
        """
        if (reason := self.overdue()) is not None:
            # The source was not asked, so nothing new is known about it.
            raise TimeoutError(reason)
        latest_ns = time.monotonic_ns() + round(self._timeout_s * 1e9)

        def attempt(until_ns: int) -> EntropyDraw:
            remaining_s = max(until_ns - time.monotonic_ns(), 0) / 1e9
            # The full time limit is reported as it was set.
            return self._attempt(
                question, self._timeout_s if until_ns >= latest_ns else remaining_s
            )

        try:
            return self._patience.draw(n, latest_ns, attempt)
        except _FailedAttempt as failure:
            if isinstance(failure.outcome, FailedDraw):
                return failure.outcome
            raise failure.outcome from None

    def probe(self, question: Callable[[], _T]) -> _T:
        """Returns the result of *question*, in time; it may touch the device, like a draw.

        Raises:
            TimeoutError: When it does not end by then, or an earlier call still has not.
            RuntimeError: When the system has no thread to spare.
        """
        return _result(self._drawing, question, self._timeout_s)

    def status(self, question: Callable[[], _T]) -> _T:
        """Returns the result of *question*, in time, whatever else the source is doing.

        Raises:
            TimeoutError: When it does not end by then, or an earlier one still has not.
            RuntimeError: When the system has no thread to spare.
        """
        return _result(self._watching, question, min(STATUS_TIMEOUT_S, self._timeout_s))

    def close(self, close: Callable[[], object], on_late: Callable[[], object]) -> TimedCall | None:
        """Ends the threads; returns the finished call of *close*.

        Args:
            close: Closes the source.
            on_late: Closes it where a draw is overdue; it is not waited for, and no call is
                returned.

        Raises:
            TimeoutError: When *close* is not finished in time.
            RuntimeError: When the system has no thread to spare.
        """
        self._watching.stop()
        if self.overdue() is None:
            return self._drawing.make_last(close, self._timeout_s)
        self._drawing.stop(last=on_late)
        return None

    def _attempt(
        self, question: Callable[[], EntropyDraw | FailedDraw], timeout_s: float
    ) -> EntropyDraw:
        """Returns a draw that has arrived in time.

        Raises:
            _FailedAttempt: When there is none.
        """
        try:
            draw = _result(self._drawing, question, timeout_s)
        except (TimeoutError, RuntimeError) as error:
            lapsed = isinstance(error, TimeoutError)
            raise _FailedAttempt(str(error), error, lapsed=lapsed) from None
        if isinstance(draw, FailedDraw):
            raise _FailedAttempt(draw.reason, draw)
        return draw


def _result(caller: CallerThread, question: Callable[[], _T], timeout_s: float) -> _T:
    call = caller.make(question, timeout_s)
    # The intake has caught everything that a source can raise.
    if call.error is not None:
        raise call.error
    result: _T = call.result  # type: ignore[assignment]
    return result


class _FailedAttempt(AttemptFailure):
    """A draw that has failed, was given up or could not be begun."""

    def __init__(
        self, reason: str, outcome: FailedDraw | Exception, *, lapsed: bool = False
    ) -> None:
        super().__init__(reason, lapsed=lapsed)
        self.outcome = outcome
