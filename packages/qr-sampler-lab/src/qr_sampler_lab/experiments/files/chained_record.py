# SPDX-License-Identifier: Apache-2.0
"""A file of chained lines, as ``docs/ledger.md`` specifies them, that several processes append to.

Lines are few and matter one by one: each is on the disk before the call returns, and the whole
chain is checked before anything is appended to it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import asdict

from qr_sampler.records.chain import ZERO_HEAD, head_of, line_of
from qr_sampler.records.clocks import boot_id, clock_line
from qr_sampler_cli.audit.reading.decoding import decode_object
from qr_sampler_cli.audit.reading.lines import LONGEST_LINE, NotALedgerError, RawLine, raw_lines
from qr_sampler_lab.experiments.files.errors import RecordError
from qr_sampler_lab.experiments.files.locking import LOCK_TIMEOUT_S, locked

__all__ = ["ChainedRecord", "Entry", "clocks_now"]

_INVALID: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class Entry(NamedTuple):
    """A line that stands in its place in the chain."""

    kind: str
    """What sort of line it is."""
    n: int
    """Its number, from 0."""
    prev: str
    """Digest of the line before it."""
    head: str
    """Its own digest."""
    values: Mapping[str, Any]
    """All of its fields, those above included."""


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
        """Yields the lines; a torn one is no line.

        Raises:
            RecordError: At the first line that does not stand in its place, or when the file cannot
                be read.
        """
        following = _Following(self.path)
        for raw, after in _with_following(self.path):
            entry = following.judged(raw, after)
            if entry is not None:
                yield entry

    def append(
        self,
        kind: str,
        fields: Mapping[str, object],
        *,
        allowed: Callable[[list[Entry]], object] | None = None,
    ) -> Entry:
        """Appends a line, and returns when the disk has it.

        A line that a crash has left unfinished is told of by a ``gap`` first.

        Args:
            kind: Kind of the line.
            fields: What it says.
            allowed: Called with all lines before it while nobody else can append; whatever it
                raises prevents the line.

        Raises:
            RecordError: When the chain is broken, the line cannot be one, or the disk refuses.
        """
        with locked(self.path, create=False, timeout_s=self._timeout_s) as descriptor:
            before = list(self.entries())
            if not before:
                raise RecordError(f"{self.path} is empty: its first line is missing")
            if allowed is not None:
                allowed(before)
            n, head = before[-1].n + 1, before[-1].head
            start, told = self._gap(n, head)
            if told:
                n, head = n + 1, head_of(told)
                start += told + b"\n"
            line = self._line(kind, n, head, fields)
            _write(descriptor, start + line + b"\n", self.path)
        return _entry(line)

    def torn_bytes(self) -> int:
        """Returns the length of what a crash has left of a last line, 0 if it is whole."""
        return sum(raw.size for raw in raw_lines(self.path) if not raw.whole)

    def _gap(self, n: int, head: str) -> tuple[bytes, bytes]:
        """Returns what ends an unfinished line, and the line that tells of it; empty without."""
        torn = self.torn_bytes()
        if not torn:
            return b"", b""
        return b"\n", self._line("gap", n, head, {"reason": "torn", "torn_bytes": torn})

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


class _Following:
    """Follows the chain through a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._n = 0
        self._prev = ""
        self._number = 0

    def judged(self, raw: RawLine, after: RawLine | None) -> Entry | None:
        """Returns the entry of a line, ``None`` for one that was cut short.

        Raises:
            RecordError: When it does not stand in its place.
        """
        self._number += 1
        if _is_torn(raw, after):
            return None
        values, fault = decode_object(raw)
        if values is None or fault:
            raise self._broken(fault)
        if self._number == 1:
            self._prev = values.get("seal") or ZERO_HEAD
        if values.get("n") != self._n or values.get("prev") != self._prev:
            raise self._broken("it does not follow the line before it")
        if not isinstance(values.get("kind"), str):
            raise self._broken("its kind is missing")
        self._n, self._prev = self._n + 1, raw.head
        return Entry(values["kind"], self._n - 1, values["prev"], raw.head, values)

    def _broken(self, reason: str) -> RecordError:
        return RecordError(
            f"{self._path}:{self._number}: {reason}; lines were changed, removed or put in"
        )


def _is_torn(raw: RawLine, after: RawLine | None) -> bool:
    """Whether a line was cut short: the last one without newline, or one that a gap tells of."""
    if after is None:
        return not raw.whole
    if not after.data.startswith(b'{"kind":"gap"'):
        return False
    gap, fault = decode_object(after)
    return gap is not None and not fault and 0 < raw.size == gap.get("torn_bytes")


def _with_following(path: Path) -> Iterator[tuple[RawLine, RawLine | None]]:
    """Yields each line with the one after it."""
    try:
        before: RawLine | None = None
        for raw in raw_lines(path):
            if before is not None:
                yield before, raw
            before = raw
        if before is not None:
            yield before, None
    except NotALedgerError as error:
        raise RecordError(str(error)) from error


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
