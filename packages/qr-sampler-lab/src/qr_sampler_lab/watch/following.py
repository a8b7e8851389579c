# SPDX-License-Identifier: Apache-2.0
"""The lines of files that grow, as they come."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from qr_sampler.records.files import ledgers_in
from qr_sampler_cli.audit.files import look_at
from qr_sampler_cli.audit.reading.lines import LONGEST_LINE, NotALedgerError, RawLine
from qr_sampler_cli.audit.reading.version1 import Version1
from qr_sampler_cli.audit.schema.lines import KnownLine

__all__ = ["FollowedFile", "Follower"]

READ_BYTES: Final = 2**23
"""Most bytes of a file that are read at one look."""

MOST_FILES: Final = 64
"""Largest number of files that are followed."""

_known: Final = msgspec.json.Decoder(KnownLine).decode


class FollowedFile:
    """A ledger file, read on from where the last look ended.

    Args:
        path: The file.

    Raises:
        NotALedgerError: When it is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version1 = Version1() if look_at(path).version == 1 else None
        self.fault = ""
        """Why it is not followed any more, empty as long as it is."""
        self.unreadable = 0
        """Number of lines that are no records."""
        self._read = 0
        self._rest = b""
        self._skipping = False

    def records(self) -> Iterator[Any]:
        """Yields the records of the lines that have been completed since the last look.

        Of a file that has grown far since then only some are yielded; see :attr:`has_more`.
        """
        for line in self._lines():
            yield from self._records_of(line)

    @property
    def has_more(self) -> bool:
        """Whether the file was longer at the last look than what has been read."""
        return self._has_more

    _has_more = False

    def _lines(self) -> list[bytes]:
        data = self._new_bytes()
        *whole, rest = (self._rest + data).split(b"\n")
        if self._skipping and whole:
            # The end of a line that is too long to be one.
            self._skipping = False
            self.unreadable += 1
            del whole[0]
        if len(rest) > LONGEST_LINE:
            self._skipping, rest = True, b""
        self._rest = b"" if self._skipping else rest
        return whole

    def _new_bytes(self) -> bytes:
        if self.fault:
            return b""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or status.st_size < self._read:
                    self.fault = "it was cut or replaced while it was watched"
                    return b""
                file.seek(self._read)
                data = file.read(READ_BYTES)
        except OSError as error:
            self.fault = f"it cannot be read: {error.strerror}"
            return b""
        self._read += len(data)
        self._has_more = self._read < status.st_size
        return data

    def _records_of(self, line: bytes) -> list[Any]:
        if self._version1 is not None:
            kind, records, fault = self._version1.decode(RawLine(line, len(line), ""))
            self.unreadable += bool(fault) or not kind
            return records
        try:
            return [_known(line)]
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.unreadable += b'"kind"' not in line[:200]
            return []


class Follower:
    """The ledger files at a path: one, or all of a directory, new ones too.

    Args:
        path: The file or the directory.

    Raises:
        NotALedgerError: When it leads to anything else, or to no ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[Path, FollowedFile] = {}
        """The files, by path."""
        self._look_for_files()
        if not self.files:
            raise NotALedgerError(f"{path} has no *.jsonl; name a ledger, or a directory of them")

    def _look_for_files(self) -> None:
        if not self.path.is_dir():
            if not self.files:
                self.files[self.path] = FollowedFile(self.path)
            return
        for path in ledgers_in(self.path):
            if path not in self.files and len(self.files) < MOST_FILES and path.stat().st_size:
                self.files[path] = FollowedFile(path)

    def look(self) -> Iterator[tuple[FollowedFile, Any]]:
        """Yields the new records of all files, each with its file."""
        self._look_for_files()
        for file in self.files.values():
            for record in file.records():
                yield file, record

    @property
    def has_more(self) -> bool:
        """Whether there was more to read at the last look."""
        return any(file.has_more for file in self.files.values())
