# SPDX-License-Identifier: Apache-2.0
"""Where steps leave entries to be recorded, and the thread that writes them.

A step never waits for a disk: what the queue has no room for is lost, and counted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from typing import Any, Final
from weakref import WeakSet

from qr_sampler.entropy.draw import DroppedBytes
from qr_sampler.foreign import DefectLog
from qr_sampler.host.journal import Journal
from qr_sampler.host.status import EngineStatus
from qr_sampler.records.accounting import dropped_record
from qr_sampler.records.entries import Entry, kind_of

__all__ = ["INTERVAL_S", "LONGEST_WAIT_S", "Handover"]

INTERVAL_S: Final = 0.2
"""Longest time in seconds between two rounds of the writing thread, unless the disk takes longer. A
process that is killed loses what was handed over since the last one."""

LONGEST_WAIT_S: Final = 10.0
"""Longest time in seconds for which somebody who asks for it waits until everything is written."""

BATCH: Final = 1024
"""Most entries that are written at once."""

logger = logging.getLogger("qr_sampler.host")


@dataclass(slots=True)
class _Overflow:
    """Entries that the queue had no room for, where they would have been."""

    missing: Counter[str] = field(default_factory=Counter)
    since_wall_ns: int = field(default_factory=time.time_ns)


class Handover:
    """Keeps entries in order between the steps that settle them and the thread that writes them.

    May be used from several threads. A forked process has its own thread, and nothing to write of
    what was handed over before.

    Args:
        journal: Where they are written; used by the writing thread alone once that has started.
        status: What counts them.
        dropped: Bytes that sources have dropped, in order; emptied.
        capacity: Most entries that may wait.
        required: Whether sampling is to stop before entries are lost.
    """

    def __init__(
        self,
        journal: Journal,
        status: EngineStatus,
        dropped: deque[DroppedBytes],
        *,
        capacity: int = 65_536,
        required: bool = False,
    ) -> None:
        self.refuses = False
        """Whether what is decided from now on might go unrecorded, and must not: the disk refuses,
        or half of the queue is full, which leaves room for what is on its way already."""
        self._journal = journal
        self._status = status
        self._dropped = dropped
        self._capacity = capacity
        self._required = required
        self._defects = DefectLog("the thread that writes records", "what it has met is lost")
        self._over = False
        """Whether the thread is to end when it has written everything."""
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        """Begins without entries, without a thread and with locks that nobody holds."""
        self._lock = threading.Lock()
        """Held while entries come and go."""
        self._counting = threading.Lock()
        """Held while they are counted, so that the order is kept."""
        self._writing = threading.Lock()
        """Held while they are written, likewise."""
        self._progress = threading.Condition()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._entries: list[Entry | _Overflow] = []
        """What waits to be written."""
        self._uncounted: list[Entry] = []
        self._handed = self._written = 0
        """Number of entries that were taken in, and that need no room any more."""
        self._asked = self._answered = 0
        """How often somebody has asked for a round, and up to which of them one has been made."""
        self._overflowed = self._stated = 0
        """Number of entries that found no room, and of those that the journal knows of."""

    @property
    def lost(self) -> int:
        """Number of records that are in no file."""
        return self._journal.lost + self._overflowed - self._stated

    def put(self, entries: Iterable[Entry]) -> None:
        """Takes in *entries*, behind the records of bytes that sources have dropped meanwhile."""
        with self._lock:
            self._take([*self._dropped_records(), *entries] if self._dropped else list(entries))
            waiting = self._handed - self._written
            if 2 * waiting >= self._capacity:
                self.refuses = self._required
                self._wake.set()
            crowded = len(self._uncounted) >= self._capacity
            if self._living_thread() is None:
                self._start()
        if crowded:
            self.count()

    def count(self) -> None:
        """Counts what has been handed over, whether it is written yet or not."""
        with self._counting:
            with self._lock:
                entries, self._uncounted = self._uncounted, []
            with self._reported():
                self._status.observe(entries)

    def flush(self, timeout_s: float = LONGEST_WAIT_S) -> bool:
        """Waits until what has been handed over is written, or the disk has refused it.

        Args:
            timeout_s: Longest time to wait, in seconds.

        Returns:
            Whether it is.
        """
        with self._lock:
            self._asked += 1
            asked, thread = self._asked, self._living_thread()
        if thread is None:
            self._round()
            return True
        self._wake.set()
        with self._progress:
            return self._progress.wait_for(lambda: self._answered >= asked, timeout_s)

    def nudge(self) -> None:
        """Has the thread write now rather than in a moment; waits for nothing."""
        self._wake.set()

    def close(self, timeout_s: float = LONGEST_WAIT_S) -> None:
        """Writes what is left and ends the ledger; more may be handed over all the same.

        Args:
            timeout_s: Longest time to wait for the disk, in seconds.
        """
        with self._lock:
            self._over = True
            thread = self._living_thread()
        if thread is None:
            self._round()
            self._end()
            return
        self._wake.set()
        thread.join(timeout_s)
        if thread.is_alive():
            logger.error(
                "the disk has not taken %d records within %g s; they are lost if the process ends",
                self._handed - self._written,
                timeout_s,
            )

    def abandon(self) -> None:
        """Has the thread write what is left, end the ledger and end, while nobody waits for it."""
        self._over = True

    def forget(self) -> None:
        """Leaves what was handed over to the process that this one was forked from."""
        self._dropped.clear()
        self._status.forget()
        self._renew()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Reports an error and goes on.

        Nobody waits for the thread: an error that ended it would go unnoticed, and with it
        everything that comes after.
        """
        try:
            yield
        except Exception as error:
            self._defects.report(error)

    def _living_thread(self) -> threading.Thread | None:
        thread = self._thread
        return thread if thread is not None and thread.is_alive() else None

    def _take(self, entries: list[Entry]) -> None:
        room = max(0, self._capacity - self._handed + self._written)
        accepted, overflow = entries[:room], entries[room:]
        self._entries += accepted
        self._handed += len(accepted)
        self._uncounted += entries
        if overflow:
            self._overflowed += len(overflow)
            if not self._entries or not isinstance(self._entries[-1], _Overflow):
                self._entries.append(_Overflow())
            last: Any = self._entries[-1]
            last.missing.update(map(kind_of, overflow))

    def _dropped_records(self) -> Iterator[Entry]:
        while self._dropped:
            yield dropped_record(self._dropped.popleft())

    def _start(self) -> None:
        """Starts the writing thread; where that is not possible any more, flushing writes."""
        thread = threading.Thread(target=self._run, name="qr-sampler-writer", daemon=True)
        self._over = False
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is about to end.
            return
        self._thread = thread
        _write_at_exit()

    def _run(self) -> None:
        while True:
            self._wake.wait(INTERVAL_S)
            self._wake.clear()
            self._round()
            if self._over and not self._entries:
                self._end()
                with self._lock:
                    if not self._entries:
                        self._thread = None
                        return

    def _round(self) -> None:
        """Writes what waits; with nothing to write the journal still checks its file."""
        with self._writing:
            self.count()
            with self._lock:
                asked = self._asked
                self._take([*self._dropped_records()])
                entries, self._entries = self._entries, []
            for start in range(0, len(entries) or 1, BATCH):
                self._write(entries[start : start + BATCH])
            with self._progress:
                self._answered = asked
                self._progress.notify_all()

    def _write(self, batch: Sequence[Entry | _Overflow]) -> None:
        entries: list[Entry] = []
        for entry in batch:
            if isinstance(entry, _Overflow):
                self._keep(entries)
                entries = []
                with self._reported():
                    self._journal.lose("overflow", entry.missing, entry.since_wall_ns)
                    self._stated += entry.missing.total()
            else:
                entries.append(entry)
        self._keep(entries)

    def _keep(self, entries: list[Entry]) -> None:
        written = False
        with self._reported():
            self._journal.write(entries)
            written = True
        if not written:
            with self._reported():
                self._journal.lose("invalid", Counter(map(kind_of, entries)))
        self._written += len(entries)
        if self._required:
            crowded = 2 * (self._handed - self._written) >= self._capacity
            self.refuses = crowded or self._journal.refuses

    def _end(self) -> None:
        with self._writing, self._reported():
            self._journal.close()


_all: Final[WeakSet[Handover]] = WeakSet()
_hooked: Final[set[int]] = set()
"""The process that closes its ledgers when it ends."""


def _write_at_exit() -> None:
    """Has this process close its ledgers when it ends."""
    if os.getpid() not in _hooked:
        _hooked.clear()
        _hooked.add(os.getpid())
        # Worker processes leave without running atexit hooks; multiprocessing's finalizers run in
        # them and in the main process alike. Those of hosts, which hand over more, come earlier.
        Finalize(None, _close_all, exitpriority=1)


def _close_all() -> None:
    for handover in list(_all):
        handover.close()


def _forget() -> None:
    """Leaves to the parent what it was handed; its threads do not survive the fork."""
    for handover in list(_all):
        handover.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
