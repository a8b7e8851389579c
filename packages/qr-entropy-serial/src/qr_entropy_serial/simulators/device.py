# SPDX-License-Identifier: Apache-2.0
"""What simulated devices have in common: a pace, a memory of bounded size, and faults."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from typing import ClassVar, Final

__all__ = ["GARBAGE", "SimulatedDevice"]

GARBAGE: Final = b"\xaa"
"""What a device with the fault ``garbage`` repeats."""

_SHORT_BYTES: Final = 600


class SimulatedDevice(ABC):
    """A device as the far end of a serial line sees it. The line calls it from one thread.

    Args:
        rate: Bytes of noise that it makes in a second; 0 for one whose bytes come from
            :meth:`feed`.
        memory_bytes: Bytes that it keeps when nobody fetches them.
    """

    faults: ClassVar[tuple[str, ...]] = ("silence", "garbage", "wrong_mode", "short")
    """What can be wrong with it: it sends nothing; one byte over and over; it does not change its
    mode when it is told to; it sends 600 bytes more, and then nothing."""

    def __init__(self, rate: float, memory_bytes: int) -> None:
        self.rate = rate
        self.memory_bytes = memory_bytes
        self.fault = ""
        """What is wrong with it, by name; empty if nothing is."""
        self.generated = 0
        """Bytes of noise that it has made so far."""
        self.baud = 0
        """Speed that the host has set the line to."""
        self._owed = 0.0
        self._sent_while_short = 0
        self._memory = bytearray()
        self._lock = threading.RLock()

    def break_down(self, fault: str) -> None:
        """Has *fault* from now on; nothing is wrong any more if it is empty.

        Raises:
            ValueError: When it is unknown.
        """
        if fault and fault not in self.faults:
            raise ValueError(f"fault {fault!r} is none of {', '.join(self.faults)}")
        self.fault = fault

    @property
    def gathers(self) -> bool:
        """Whether it makes noise now."""
        return True

    @abstractmethod
    def power_up(self) -> None:
        """Is plugged in: forgets everything."""

    @abstractmethod
    def commanded(self, data: bytes) -> None:
        """Takes what the host has sent."""

    @abstractmethod
    def offered(self) -> bytes:
        """Returns what it would send now if nothing was wrong with it."""

    def opened_at(self, baud: int) -> None:
        """Takes note that the host has set the speed of the line."""
        self.baud = baud

    def outgoing(self) -> bytes:
        """Returns what it would send now."""
        if self.fault == "silence":
            return b""
        if self.fault != "short":
            self._sent_while_short = 0
            data = self.offered()
        else:
            data = self.offered()[: _SHORT_BYTES - self._sent_while_short]
        return GARBAGE * len(data) if self.fault == "garbage" else data

    def sent(self, count: int) -> None:
        """Forgets the first *count* bytes of what it would have sent."""
        self.note_sent(count)
        self.forget_first(count)

    def note_sent(self, count: int) -> None:
        """Counts what has left it, for the fault ``short``."""
        self._sent_while_short += count

    def forget_first(self, count: int) -> None:
        """Forgets the first *count* bytes of what it keeps."""
        with self._lock:
            del self._memory[:count]

    def feed(self, data: bytes) -> int:
        """Takes *data* as noise that it has made, as far as there is room; returns how much."""
        with self._lock:
            room = max(self.memory_bytes - len(self._memory), 0)
            taken = data[:room] if self.gathers else b""
            self.generated += len(taken)
            self._memory += taken
        return len(taken)

    def pass_time(self, seconds: float) -> None:
        """Makes the noise of *seconds*."""
        if not self.gathers:
            self._owed = 0.0
            return
        self._owed = min(self._owed + self.rate * seconds, 2.0 * self.memory_bytes)
        count, self._owed = int(self._owed), self._owed % 1.0
        if count:
            self.feed(os.urandom(count))

    def waiting(self) -> bytes:
        """Returns what it keeps."""
        with self._lock:
            return bytes(self._memory)

    def forget(self) -> None:
        """Keeps nothing any more."""
        with self._lock:
            self._memory.clear()
