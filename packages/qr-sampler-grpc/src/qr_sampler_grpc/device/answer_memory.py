# SPDX-License-Identifier: Apache-2.0
"""The memory that a server spends on answers that clients have not read yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from qr_sampler.errors import QRSamplerError

__all__ = ["AnswerMemory", "AnswerPlace", "CrowdedError", "reading_time_s"]

_LEAST_BYTES: Final = 128 * 2**20
_CALL_BYTES: Final = 32 * 2**10
"""What an open call costs beside its data, roughly."""
_HOLDERS: Final = 2
"""How many holders can use their full share at once."""
_UNREAD_S: Final = 1.0
"""How long an answer may stay unread while its memory is needed for another."""
_WAIT_S: Final = 2.0
"""How long to wait for memory: longer than it takes to give up unread answers."""
_POLL_S: Final = 0.1
_PATIENCE_S: Final = 30.0
_SLOWEST_BYTES_PER_S: Final = 256 * 2**10


class CrowdedError(QRSamplerError, RuntimeError):
    """Too many answers are on their way already."""


class AnswerPlace:
    """The memory reserved for one answer until it has been read or given up."""

    __slots__ = ("_give_up", "_memory", "_since_s", "holder", "size")

    def __init__(self, memory: AnswerMemory, holder: str, size: int) -> None:
        self._memory = memory
        self._give_up: Callable[[], object] | None = None
        self._since_s = 0.0
        self.holder = holder
        self.size = size

    def sending(self, give_up: Callable[[], object]) -> None:
        """Notes that the answer is being sent; *give_up* ends that at once and raises nothing."""
        self._since_s = time.monotonic()
        self._give_up = give_up

    def free(self) -> None:
        """Releases the reservation. May be called more than once."""
        self._memory.leave(self)

    def abandon(self) -> bool:
        """Gives up an answer that has been unread for too long; returns whether it was."""
        give_up = self._give_up
        if give_up is None or time.monotonic() - self._since_s < _UNREAD_S:
            return False
        self.free()
        give_up()
        return True


class AnswerMemory:
    """Bounds the memory of all answers on their way to clients, and of those of one client.

    When it is full, answers that their clients leave unread are given up.

    Args:
        largest_bytes: Most data that one answer has.
    """

    def __init__(self, largest_bytes: int) -> None:
        self._share = max(_LEAST_BYTES, 2 * (largest_bytes + _CALL_BYTES))
        # Reentrant: giving an answer up may free it from the same thread.
        self._changed = threading.Condition(threading.RLock())
        self._places: dict[str, dict[AnswerPlace, None]] = {}
        self._held: dict[str, int] = {}
        self._total = 0

    def take(self, holder: str, data_bytes: int) -> AnswerPlace:
        """Returns the place for an answer with so much data; waits for it for a moment.

        Args:
            holder: Whose answer it is: an account, or where the client connects from.
            data_bytes: Its data, at most *largest_bytes*.

        Raises:
            CrowdedError: When *holder*, or all together, have too much on its way.
        """
        place = AnswerPlace(self, holder, data_bytes + _CALL_BYTES)
        with self._changed:
            if not self._fits(place):
                self._wait_for(place)
            self._held[holder] = self._held.get(holder, 0) + place.size
            self._places.setdefault(holder, {})[place] = None
            self._total += place.size
        return place

    def leave(self, place: AnswerPlace) -> None:
        """Frees *place*, if it has not been before."""
        with self._changed:
            places = self._places.get(place.holder, {})
            if place not in places:
                return
            del places[place]
            self._held[place.holder] -= place.size
            self._total -= place.size
            if not places:
                del self._places[place.holder], self._held[place.holder]
            self._changed.notify_all()

    def _wait_for(self, place: AnswerPlace) -> None:
        deadline_s = time.monotonic() + _WAIT_S
        while not self._fits(place):
            if self._make_way(place.holder):
                continue
            if time.monotonic() >= deadline_s:
                raise CrowdedError(
                    f"answers of {self._held.get(place.holder, 0)} bytes are on their way to you "
                    "and unread; read them first"
                )
            self._changed.wait(_POLL_S)

    def _fits(self, place: AnswerPlace) -> bool:
        return (
            self._held.get(place.holder, 0) + place.size <= self._share
            and self._total + place.size <= _HOLDERS * self._share
        )

    def _make_way(self, holder: str) -> bool:
        """Gives up one answer: of *holder*, or of the largest holder when everything is taken."""
        if self._held.get(holder, 0) * 2 < self._share and self._held:
            holder = max(self._held, key=self._held.__getitem__)
        return any(place.abandon() for place in list(self._places.get(holder, ())))


def reading_time_s(data_bytes: int) -> float:
    """Returns how long a client may take to read an answer, in seconds."""
    return _PATIENCE_S + data_bytes / _SLOWEST_BYTES_PER_S
