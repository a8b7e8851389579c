# SPDX-License-Identifier: Apache-2.0
"""Calls that must end, whatever the component under test does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import pytest

__all__ = ["THREAD_PREFIX", "in_time"]

THREAD_PREFIX: Final = "contract of "
"""Begins the names of threads that a contract has started."""

T = TypeVar("T")


def in_time(call: Callable[[], T], patience_s: float, what: str) -> T:
    """Returns what *call* returns or raises what it raises; a call that hangs fails the test.

    Its thread stays behind then, since nothing can end it.

    Args:
        call: Takes no arguments.
        patience_s: Longest duration in seconds.
        what: The call in words.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        # Raised again in the thread of the test.
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name=THREAD_PREFIX + what)
    thread.start()
    thread.join(patience_s)
    if errors:
        raise errors[0]
    if not results:
        pytest.fail(f"{what} has not ended after {patience_s:g} s; give it a deadline")
    return results[0]
