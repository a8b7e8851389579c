# SPDX-License-Identifier: Apache-2.0
"""A file of chained lines, as ``docs/ledger.md`` specifies them, that several processes append to.

Lines are few and matter one by one: each is on the disk before the call returns, and the whole
chain is checked before anything is appended to it.
"""

from __future__ import annotations

import copy
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
from msgspec.structs import asdict

from qr_sampler.records.chain import ZERO_HEAD, head_of, line_of
from qr_sampler.records.clocks import boot_id, clock_line
from qr_sampler_cli.audit.reading.lines import LONGEST_LINE
from qr_sampler_lab.experiments.files.chain_reader import ChainReader, Entry
from qr_sampler_lab.experiments.files.errors import RecordError
from qr_sampler_lab.experiments.files.locking import LOCK_TIMEOUT_S, locked

__all__ = ["Allowed", "ChainedRecord", "Entry", "clocks_now"]

_INVALID: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


Allowed: TypeAlias = Callable[[list[Entry], bool], object]
"""Judges a line before it is written, see :meth:`ChainedRecord.append`."""


def clocks_now() -> dict[str, Any]:
    """Returns what every line says of its time: all clocks of the machine, and when it started."""
    return {**asdict(clock_line()), "boot_id": boot_id()}


class ChainedRecord:
    """Lines in a chain, each stamped with the clocks of the machine.

    Args:
        path: The file.
        timeout_s: Longest wait for other processes that append to it.
    """

    def __init__(self, path: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._reader = ChainReader(path)
        self._own: list[Entry] = []

    def create(self, kind: str, fields: Mapping[str, object], *, seal: str | None = None) -> Entry:
        """Makes the file with its first line; it then exists with that line, or not at all.

        Args:
            kind: Kind of the line.
            fields: What it says.
            seal: The digest that its ``prev`` is; without one, it is 64 zeros.

        Raises:
            RecordError: When it exists, or cannot be written.
        """
        values = {"continues": None, "seal": seal, **fields}
        line = self._line(kind, 0, seal or ZERO_HEAD, values)
        fresh = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.new")
        try:
            with locked(fresh, create=True, timeout_s=self._timeout_s) as descriptor:
                _write(descriptor, line + b"\n", fresh)
                # Unlike a renaming, a hard link never replaces anything.
                self.path.hardlink_to(fresh)
        except OSError as error:
            raise RecordError(f"{self.path} cannot be made: {error.strerror}") from error
        finally:
            fresh.unlink(missing_ok=True)
        _sync_directory(self.path.parent)
        return _entry(line)

    def entries(self) -> Iterator[Entry]:
        """Yields the lines, read anew from the first; a torn one is no line.

        Raises:
            RecordError: At the first line that does not stand in its place, or when the file cannot
                be read.
        """
        return ChainReader(self.path).news()

    def append(
        self, kind: str, fields: Mapping[str, object], *, allowed: Allowed | None = None
    ) -> Entry:
        """Appends a line, and returns when the disk has it.

        A line that a crash has left unfinished is told of by a ``gap`` first. What this object has
        judged once is not read again while the file is the same and has not become shorter.

        Args:
            kind: Kind of the line.
            fields: What it says.
            allowed: Called while nobody else can append, with the lines since its last call, and
                whether these are all lines from the first on; whatever it raises prevents the line.

        Raises:
            RecordError: When the chain is broken, the line cannot be one, or the disk refuses.
        """
        with locked(self.path, create=False, timeout_s=self._timeout_s) as descriptor:
            news, anew = self._news()
            reader = self._reader
            if not reader.n:
                raise RecordError(f"{self.path} is empty: its first line is missing")
            if allowed is not None:
                allowed(news, anew)
            return self._append(descriptor, reader, kind, fields)

    def _append(
        self, descriptor: int, reader: ChainReader, kind: str, fields: Mapping[str, object]
    ) -> Entry:
        torn = reader.torn_bytes
        n, head, lines = reader.n, reader.head, []
        if torn:
            lines.append(self._line("gap", n, head, {"reason": "torn", "torn_bytes": torn}))
            n, head = n + 1, head_of(lines[0])
        lines.append(self._line(kind, n, head, fields))
        start = b"\n" if torn else b""
        _write(descriptor, start + b"\n".join((*lines, b"")), self.path)
        self._own = [reader.wrote(lines[0], torn + 1 if torn else 0)]
        self._own += [reader.wrote(line) for line in lines[1:]]
        return self._own[-1]

    def torn_bytes(self) -> int:
        """Returns the length of what a crash has left of a last line, 0 if it is whole."""
        reader = ChainReader(self.path)
        for _ in reader.news():
            pass
        return reader.torn_bytes

    def _news(self) -> tuple[list[Entry], bool]:
        """Returns the lines since the last call, and whether these are all from the first on.

        Raises:
            RecordError: When a line is out of its place, or those are gone that were here before.
        """
        known = self._reader
        if known.goes_on():
            # A copy, so that a line out of its place is met again the next time.
            reader = copy.copy(known)
            news = [*self._own, *reader.news()]
        else:
            reader = ChainReader(self.path)
            news = list(reader.news())
            if known.n and not any(e.head == known.head and e.n == known.n - 1 for e in news):
                raise RecordError(f"{self.path} has lost lines, or others stand in their place")
        self._reader, self._own = reader, []
        return news, len(news) == reader.n

    def _line(self, kind: str, n: int, prev: str, fields: Mapping[str, object]) -> bytes:
        stamps = clocks_now()
        if twice := fields.keys() & {"kind", "n", "prev", *stamps}:
            raise RecordError(f"the field {min(twice)} of a line is given by the file")
        try:
            line = line_of(kind, n, prev, {**fields, **stamps})
        except _INVALID as error:
            raise RecordError(f"a line of kind {kind!r} cannot be written: {error}") from error
        if len(line) > LONGEST_LINE:
            raise RecordError(
                f"a line of kind {kind!r} would have {len(line):,} bytes; {LONGEST_LINE:,} are the "
                "most"
            )
        return line


def _entry(line: bytes) -> Entry:
    values = msgspec.json.decode(line)
    return Entry(values["kind"], values["n"], values["prev"], head_of(line), values)


def _write(descriptor: int, data: bytes, path: Path) -> None:
    """Appends *data* and waits until the disk has it; what it takes only in part is undone."""
    try:
        size = os.fstat(descriptor).st_size
        written = os.write(descriptor, data)
        if written < len(data):
            os.ftruncate(descriptor, size)
            raise RecordError(f"{path} took {written} of {len(data)} bytes; make room on the disk")
        os.fsync(descriptor)
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error.strerror}") from error


def _sync_directory(directory: Path) -> None:
    """Makes the disk keep the name of a new file."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
