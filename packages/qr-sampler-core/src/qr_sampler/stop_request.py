# SPDX-License-Identifier: Apache-2.0
"""A request to stop that a handler of signals may make."""

from __future__ import annotations

import threading
from contextlib import suppress

__all__ = ["StopRequest"]


class StopRequest:
    """What :class:`threading.Event` is, safe to be set by a handler of signals.

    Python calls a handler between two instructions of the main thread. If that thread waits for an
    ``Event``, it may hold the lock that ``Event.set`` takes, and the process hangs for ever. Here a
    request takes no lock. It cannot be taken back.

    Examples:
        >>> stop = StopRequest()
        >>> stop.wait(0.01)
        False
        >>> stop.set()
        >>> stop.wait(), stop.is_set()
        (True, True)
    """

    def __init__(self) -> None:
        self._made = False
        # Held until the request is made.
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Returns whether the request has been made."""
        return self._made

    def set(self) -> None:
        """Makes the request; once more changes nothing."""
        self._made = True
        self._open()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Returns whether the request has been made, as soon as it is.

        Args:
            timeout_s: The longest to wait, in seconds; ``None`` for no limit.
        """
        if not self._made and self._gate.acquire(timeout=-1 if timeout_s is None else timeout_s):
            # Others may wait, too.
            self._open()
        return self._made

    def _open(self) -> None:
        # It may be open already: this can be interrupted by another request.
        with suppress(RuntimeError):
            self._gate.release()
