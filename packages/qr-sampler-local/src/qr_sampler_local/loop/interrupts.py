# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C waits while half of what is being done would be wrong."""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

__all__ = ["Uninterrupted"]

# Without the enumerations around them, which would cost a step several microseconds.
_handler_of: Final[Callable[[int], Any]] = inspect.unwrap(signal.getsignal)
_set_handler: Final[Callable[[int, Any], Any]] = inspect.unwrap(signal.signal)


class Uninterrupted:
    """Puts off SIGINT until a ``with`` block is over; a second one does not wait.

    Python runs the handler of a signal between any two instructions of the main thread, so that an
    interruption may come after a byte has been drawn and before anything refers to it. In other
    threads there are none, and nothing changes there.
    """

    __slots__ = ("_came", "_previous")

    def __init__(self) -> None:
        self._previous: Any = None
        """What handles SIGINT otherwise; ``None`` where that is not put off."""
        self._came = 0
        """How often SIGINT has come."""

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        previous = _handler_of(signal.SIGINT)
        if callable(previous):
            self._previous = previous
            try:
                _set_handler(signal.SIGINT, self._note)
            except ValueError:
                # A further interpreter of the process gets no signals either.
                self._previous = None

    def __exit__(self, *_: object) -> None:
        previous, self._previous = self._previous, None
        if previous is not None:
            _set_handler(signal.SIGINT, previous)
            if self._came == 1:
                previous(signal.SIGINT, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came += 1
        if self._came > 1:
            self._previous(number, frame)
