# SPDX-License-Identifier: Apache-2.0
"""Where steps leave entries to be recorded, until another thread has time to write them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final

from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.host.journal import Journal
from qr_sampler.host.status import EngineStatus
from qr_sampler.records.accounting import dropped_record
from qr_sampler.records.entries import Entry

__all__ = ["LONGEST_WAIT_S", "MOST_WAITING", "Handover"]

MOST_WAITING: Final = 10_000
"""Number of entries from which a step writes them itself: a disk slower than the steps holds them
up rather than filling the memory."""

LONGEST_WAIT_S: Final = 0.2
"""Time in seconds after which a step writes itself if no other thread does."""


class Handover:
    """Keeps entries in order between the steps that settle them and the thread that writes them.

    May be used from several threads.

    Args:
        journal: Where they are written.
        status: What counts them.
        dropped: Bytes that sources have dropped, in order; emptied.
        clock: Seconds from any origin.
    """

    def __init__(
        self,
        journal: Journal,
        status: EngineStatus,
        dropped: deque[DroppedBytes],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._status = status
        self._dropped = dropped
        self._clock = clock
        self._entries: list[Entry] = []
        self._oldest_s = 0.0
        """When the first of the entries came."""
        self._lock = Lock()
        """Held while entries come and go."""
        self._writing = Lock()
        """Held by the writing thread, so that the order is kept."""

    def put(self, entries: Iterable[Entry]) -> None:
        """Takes in *entries*, behind the records of bytes that sources have dropped meanwhile."""
        now_s = self._clock()
        with self._lock:
            if not self._entries:
                self._oldest_s = now_s
            self._take_dropped()
            self._entries.extend(entries)
            count, waited_s = len(self._entries), now_s - self._oldest_s
        if count >= MOST_WAITING:
            self.write()
        elif count and waited_s >= LONGEST_WAIT_S and self._writing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._writing.release()

    def write(self) -> None:
        """Writes and counts what waits; with nothing to write the journal still checks its file."""
        with self._writing:
            self._write()

    def _write(self) -> None:
        with self._lock:
            self._take_dropped()
            entries, self._entries = self._entries, []
        self._journal.write(entries)
        self._status.observe(entries)

    def _take_dropped(self) -> None:
        while self._dropped:
            self._entries.append(dropped_record(self._dropped.popleft()))
