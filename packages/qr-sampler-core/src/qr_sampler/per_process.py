# SPDX-License-Identifier: Apache-2.0
"""Values that a forked process must not share with its parent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["PerProcess"]

_Value = TypeVar("_Value")


class PerProcess(Generic[_Value]):
    """Holds a value for each process; threads may share an instance.

    Threads, locks and connections are useless in a child of the process that made them.

    Args:
        make: Makes the value of a process.
        discard: Disposes of a value if another thread was faster.
    """

    def __init__(
        self, make: Callable[[], _Value], discard: Callable[[_Value], object] = id
    ) -> None:
        self._make = make
        self._discard = discard
        # Filled with setdefault, which is atomic: a lock could be held by another thread at the
        # moment of a fork, and would stay locked in the child forever.
        self._values: dict[int, _Value] = {}

    def get(self) -> _Value:
        """Returns the value of this process, made on first use."""
        process = os.getpid()
        value = self._values.get(process)
        if value is None:
            fresh = self._make()
            value = self._values.setdefault(process, fresh)
            if value is not fresh:
                self._discard(fresh)
        return value

    def peek(self) -> _Value | None:
        """Returns the value of this process if there is one."""
        return self._values.get(os.getpid())

    def pop(self) -> _Value | None:
        """Forgets and returns the value of this process if there is one."""
        return self._values.pop(os.getpid(), None)

    def pop_others(self) -> Iterator[_Value]:
        """Forgets and yields the copies of values that other processes still use."""
        for process in [one for one in list(self._values) if one != os.getpid()]:
            with suppress(KeyError):
                yield self._values.pop(process)
