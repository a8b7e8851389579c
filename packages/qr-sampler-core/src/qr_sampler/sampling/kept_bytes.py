# SPDX-License-Identifier: Apache-2.0
"""The bytes of draws that are kept until they are written, as many as there is room for."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from qr_sampler.per_process import PerProcess

__all__ = ["MOST_KEPT_BYTES", "KeptBytes", "keep"]

MOST_KEPT_BYTES: Final = 2**27
"""Number of bytes of draws that a process keeps at once; those of further draws are lost."""


class _Room:
    """Counts what is kept. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self.given_back: deque[int] = deque()
        """What has been forgotten since. Whoever collects garbage may hold the lock, and leaves a
        note."""

    def take(self, count: int) -> bool:
        """Returns whether there was room for *count* bytes, which is taken then."""
        with self._lock:
            while self.given_back:
                self._taken -= self.given_back.popleft()
            if self._taken + count > MOST_KEPT_BYTES:
                return False
            self._taken += count
            return True


_room: Final = PerProcess(_Room)


class KeptBytes:
    """The bytes of a draw, which take up room as long as this object lives.

    Args:
        data: The bytes.
        room: Where they take it up.
    """

    __slots__ = ("_room", "data")

    def __init__(self, data: bytes, room: _Room) -> None:
        self.data = data
        self._room = room

    def __del__(self) -> None:
        """Gives the room back."""
        self._room.given_back.append(len(self.data))


def keep(data: bytes) -> KeptBytes | None:
    """Keeps the bytes of a draw; returns ``None`` if there is no room for them."""
    room = _room.get()
    return KeptBytes(data, room) if room.take(len(data)) else None
