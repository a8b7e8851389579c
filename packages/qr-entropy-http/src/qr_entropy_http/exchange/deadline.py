# SPDX-License-Identifier: Apache-2.0
"""The end of a draw's time, however many steps it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["Deadline", "DeadlineLapsedError"]

_NS_PER_S: Final = 1_000_000_000


class DeadlineLapsedError(Exception):
    """The time of a draw is used up."""


class Deadline:
    """Says how much of a draw's time is left.

    Args:
        until_ns: When it ends, by *clock*.
        clock: The time in ns, monotonic.
    """

    def __init__(self, until_ns: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._until_ns = until_ns
        self._clock = clock

    def remaining_s(self) -> float:
        """Returns the seconds that are left, more than 0.

        Raises:
            DeadlineLapsedError: When none are.
        """
        left_ns = self._until_ns - self._clock()
        if left_ns <= 0:
            raise DeadlineLapsedError
        return left_ns / _NS_PER_S
