# SPDX-License-Identifier: Apache-2.0
"""How commands that go on until they are told to stop are told so."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["stop_signals"]


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
