# SPDX-License-Identifier: Apache-2.0
"""When the records of a host are written while no step writes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from threading import RLock

from qr_sampler.host.sequence import TokenSequence
from qr_sampler.host.session import SamplingSession
from qr_sampler.records.entries import Entry

__all__ = ["RecordKeeper"]


class RecordKeeper(ABC):
    """The part of a host that keeps the records of its sequences. May be used from any thread.

    Args:
        session: What the host samples with.
    """

    def __init__(self, session: SamplingSession) -> None:
        self.session = session
        self.lock = RLock()
        """Held while the state changes: another thread settles the tokens of an idle host."""

    @abstractmethod
    def settled(self) -> list[Entry]:
        """Returns the records that the tokens taken by the host so far settle."""

    @abstractmethod
    def open_sequences(self) -> Iterable[TokenSequence]:
        """Returns the sequences that may have tokens without records, or may get more."""

    def departed(self) -> list[Entry]:
        """Returns the ends of sequences that wait in vain to be resumed, when the host ends."""
        return []

    def keep_up(self) -> None:
        """Publishes the status and has written what is settled or overdue; waits for no disk.

        To be called at short intervals by a thread that makes no steps.
        """
        # First, and without the lock: a step holds it while it waits for a source.
        self.session.publish()
        with self.lock:
            self.session.record(self.overdue())
        self.session.write_soon()

    def flush(self) -> None:
        """Writes the records of all tokens that are known to have been emitted, and the status."""
        self.session.publish()
        with self.lock:
            self.session.record(self.settled())
        self.session.write()

    def write_overdue(self) -> None:
        """Writes the records of tokens that have waited since the last call.

        Whether those have been emitted is unknown, and their records say so.
        """
        with self.lock:
            self.session.record(self.overdue())
        self.session.write()

    def overdue(self) -> list[Entry]:
        """Returns what is settled, and the records of tokens that were waiting at the last call."""
        entries = self.settled()
        for sequence in self.open_sequences():
            entries += sequence.record_overdue()
        return entries

    def close(self) -> None:
        """Writes the records that remain when the host ends, and ends the ledger."""
        with self.lock:
            entries = self.settled()
            for sequence in self.open_sequences():
                entries += sequence.end("closed")
            self.session.record([*entries, *self.departed()])
        self.session.close()
