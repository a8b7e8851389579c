# SPDX-License-Identifier: Apache-2.0
"""How commands that go on until they are told to stop are told so."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["Interruption", "interruption", "stop_signals"]


@contextlib.contextmanager
def stop_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Has SIGINT and SIGTERM call *stop* instead of what they did before."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop()

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Interruption:
    """How often SIGINT has come."""

    def __init__(self) -> None:
        self.count = 0
        """How often."""

    def __call__(self) -> bool:
        """Returns whether it has come at all."""
        return self.count > 0

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Notes one that has come, as a handler of signals.

        Raises:
            KeyboardInterrupt: When it is not the first.
        """
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


@contextlib.contextmanager
def interruption() -> Iterator[Interruption]:
    """Yields what tells whether SIGINT has come, which then interrupts nothing else.

    For work that must not stop between two of its steps. A second SIGINT raises
    ``KeyboardInterrupt`` nevertheless. Only the main thread can ask for signals: in another one, or
    where SIGINT is ignored, nothing changes. Inside a block of its own kind it yields what that one
    does, so that both learn of a signal.
    """
    handler = signal.getsignal(signal.SIGINT)
    outer = getattr(handler, "__self__", None)
    if threading.current_thread() is threading.main_thread() and isinstance(outer, Interruption):
        yield outer
        return
    came = Interruption()

    if threading.current_thread() is not threading.main_thread() or _ignored():
        yield came
        return
    previous = signal.signal(signal.SIGINT, came.note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, previous)


def _ignored() -> bool:
    return signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)
