# SPDX-License-Identifier: Apache-2.0
"""Where records go: a JSON Lines file that a full disk cannot turn into an outage."""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Iterable, Sequence
from io import FileIO
from pathlib import Path
from typing import Final, Protocol

from qr_sampler.records import GapRecord, Record

__all__ = ["JsonLinesSink", "MemorySink", "RecordSink"]

logger = logging.getLogger("qr_sampler.records.ledger")


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
    """Appends records to a file, one JSON object per line, flushed after every batch.

    The file is created on the first write, readable by its owner only. If the disk refuses, the
    sink reports it once and tries again with the next batch. Every write first checks that the file
    is in its place: if it was removed, moved away or cut short, a new one is started.
    What is lost is counted in :attr:`lost`, and a :class:`GapRecord` stands where lines are
    missing. A line that a full disk or a crash cut short is ended before the next one.

    Args:
        path: File to append to; its directory is created when missing.
        header: Records that the file begins with, whenever it is begun.
    """

    def __init__(self, path: Path, header: Sequence[Record] = ()) -> None:
        self.path = path
        self.lost = 0
        """Number of records that the disk has refused, or that have gone with the file."""
        self._header = [_line(record) for record in header]
        self._due = list(self._header)
        """Lines that come before all others."""
        self._refused = 0
        """Number of refused records that the file does not tell of yet."""
        self._file: FileIO | None = None
        self._identity: os.stat_result | None = None
        """What the file was when it was opened; ``None`` as long as it has not been begun."""
        self._lines = 0
        """Number of lines written since the file was begun."""
        self._size = 0
        """Number of bytes that the file has at least."""

    def begin(self) -> None:
        """Creates the file with its header."""
        self._append(())
        self.lost += len(self._due)

    def write(self, records: Iterable[Record]) -> None:
        """Appends *records* and flushes them to the operating system.

        Without records it still notices if the file is gone, and starts a new one.
        """
        lines = [_line(record) for record in records]
        fate = self._fate()
        if fate is not None:
            self._leave(fate)
        if lines or fate is not None:
            self._append(lines)

    def close(self) -> None:
        """Closes the file; a later write opens it again."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                logger.error("closing the ledger %s failed: %s", self.path, error)

    def _append(self, lines: Sequence[bytes]) -> None:
        due = [*self._due, *([_gap("refused", self._refused)] if self._refused else [])]
        data = b"".join([*due, *lines])
        written, failure = 0, None
        try:
            file = self._open()
            while written < len(data):
                written += file.write(data[written:])
        except OSError as error:
            failure = error
        whole = data.count(b"\n", 0, written)
        self._lines += whole
        self._size += written
        del self._due[:whole]
        if whole >= len(due):
            self._refused = 0
        if failure is not None:
            self._report_loss(len(lines) - max(whole - len(due), 0), failure)

    def _open(self) -> FileIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            self._file = os.fdopen(descriptor, "a+b", buffering=0)
            _end_torn_line(self._file)
            self._identity = os.fstat(descriptor)
            self._size = self._identity.st_size
        return self._file

    def _fate(self) -> str | None:
        """Returns what was done to the file by others, ``None`` if it is unchanged."""
        if self._identity is None:
            return None
        try:
            there = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "moved" if self._is_elsewhere() else "removed"
        except OSError:
            # Whether lines can still be written is for the next write to say.
            return None
        if not os.path.samestat(there, self._identity):
            return "moved" if self._is_elsewhere() else "removed"
        return "cut" if stat.S_ISREG(there.st_mode) and there.st_size < self._size else None

    def _is_elsewhere(self) -> bool:
        return self._file is not None and os.fstat(self._file.fileno()).st_nlink > 0

    def _leave(self, fate: str) -> None:
        """Counts what was lost with the file; the next line starts a new one."""
        if fate != "moved":
            self.lost += self._lines
        logger.error(
            "the ledger %s was %s while it was being written, and %d records with it; it is begun "
            "anew",
            self.path,
            {"cut": "cut short"}.get(fate, fate),
            self._lines,
        )
        self.close()
        self._due = [*self._header, _gap(fate, self._lines)]
        self._identity, self._lines = None, 0

    def _report_loss(self, count: int, error: OSError) -> None:
        if not self.lost:
            logger.error(
                "cannot write records to %s: %s; sampling continues without them until the disk "
                "accepts writes again",
                self.path,
                error,
            )
        self.lost += count
        self._refused += count
        # Opening it again looks for the half line that the failure may have left.
        self.close()


_as_json: Final = json.JSONEncoder(allow_nan=False).encode
"""Does what ``json.dumps`` does, without an encoder for every line."""


def _line(record: Record) -> bytes:
    return f"{_as_json(record.as_dict())}\n".encode()


def _gap(reason: str, missing: int) -> bytes:
    return _line(GapRecord(reason=reason, missing_lines=missing, wall_time_ns=time.time_ns()))


def _end_torn_line(file: FileIO) -> None:
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.write(b"\n")
