# SPDX-License-Identifier: Apache-2.0
"""Where records go: a JSON Lines file that a full disk cannot turn into an outage."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Protocol

from qr_sampler.records import Record

__all__ = ["JsonLinesSink", "MemorySink", "RecordSink"]

logger = logging.getLogger("qr_sampler.ledger")


class RecordSink(Protocol):
    """Anything that keeps records."""

    def write(self, records: Iterable[Record]) -> None:
        """Keeps *records*, in order. Never raises for want of space or permission."""

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

    The file is created on the first write, readable by its owner only. When the disk refuses, the
    sink says so once, counts what is lost in :attr:`lost` and tries again with the next batch. A
    line that a full disk or a crash cut short is ended before the next one.

    Args:
        path: File to append to; its directory is created when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self._file: FileIO | None = None

    def write(self, records: Iterable[Record]) -> None:
        """Appends *records* and flushes them to the operating system."""
        lines = [json.dumps(record.as_dict(), allow_nan=False) for record in records]
        if not lines:
            return
        data = "".join(f"{line}\n" for line in lines).encode()
        written = 0
        try:
            file = self._open()
            while written < len(data):
                written += file.write(data[written:])
        except OSError as error:
            self._report_loss(data.count(b"\n", written), error)

    def close(self) -> None:
        """Closes the file; a later write opens it again."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                logger.error("closing the ledger %s failed: %s", self.path, error)

    def _open(self) -> FileIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            self._file = os.fdopen(descriptor, "a+b", buffering=0)
            _end_torn_line(self._file)
        return self._file

    def _report_loss(self, count: int, error: OSError) -> None:
        if not self.lost:
            logger.error(
                "cannot write records to %s: %s; sampling goes on without them until the disk "
                "accepts writes again",
                self.path,
                error,
            )
        self.lost += count
        # Opening it again looks for the half line that the failure may have left.
        self.close()


def _end_torn_line(file: FileIO) -> None:
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.write(b"\n")
