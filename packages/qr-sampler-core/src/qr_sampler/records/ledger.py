# SPDX-License-Identifier: Apache-2.0
"""Where records go: a JSON Lines file that a full disk cannot turn into an outage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from qr_sampler.records import Record
from qr_sampler.records.files.writer import LedgerWriter

__all__ = ["JsonLinesSink", "MemorySink", "RecordSink"]


class RecordSink(Protocol):
    """Anything that keeps records."""

    def write(self, records: Iterable[Record]) -> None:
        """Keeps *records*, in order. Never raises for lack of space or permission."""

    def close(self) -> None:
        """Flushes and releases what the sink holds. May be called more than once."""


class MemorySink:
    """Keeps records in a list, for interactive use and tests."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, records: Iterable[Record]) -> None:
        """Appends *records* to :attr:`records`."""
        self.records.extend(records)

    def close(self) -> None:
        """Does nothing; the records stay readable."""


class JsonLinesSink:
    """Appends records to a file, one JSON object per line, handed to the system after every batch.

    The file is created on the first write, readable by its owner only. If the disk refuses, the
    sink reports it once and tries again with the next batch. Every write first checks that the file
    is in its place: if it was removed, moved away or cut short, a new one is begun beside it. What
    is lost is counted in :attr:`lost`, and a ``gap`` line stands where lines are missing. Each line
    names the digest of the one before it, so only one sink at a time may write to a file.

    Args:
        path: File to append to; its directory is created when missing.
        header: Records that the file begins with, whenever it is begun.
    """

    def __init__(self, path: Path, header: Sequence[Record] = ()) -> None:
        self._header = [(record.kind, record) for record in header]
        self._writer = LedgerWriter(path, lambda continues: self._header)

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return self._writer.path

    @property
    def lost(self) -> int:
        """Number of records that the disk has refused, or that have gone with a file."""
        return self._writer.lost

    def begin(self) -> None:
        """Creates the file with its header."""
        self._writer.begin()

    def write(self, records: Iterable[Record]) -> None:
        """Appends *records* and hands them to the operating system.

        Without records it still notices if the file is gone, and begins a new one.
        """
        self._writer.prepare()
        self._writer.write([(record.kind, record) for record in records])

    def close(self) -> None:
        """Closes the file; a later write opens it again."""
        self._writer.release()
