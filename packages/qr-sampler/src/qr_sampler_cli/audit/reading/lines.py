# SPDX-License-Identifier: Apache-2.0
"""The lines of a file, one by one and in bounded memory, whatever the file holds."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from qr_sampler.errors import QRSamplerError

__all__ = ["LONGEST_LINE", "NotALedgerError", "RawLine", "raw_lines"]

LONGEST_LINE: Final = 2**20
"""Most bytes of a line that is looked at; a longer one is a finding."""

_CHUNK: Final = 2**20


class NotALedgerError(QRSamplerError, ValueError):
    """A path does not lead to a ledger."""


class RawLine(NamedTuple):
    """One line as it stands in the file."""

    data: bytes
    """Its bytes without the newline; empty if it is too long."""
    size: int
    """Their number."""
    head: str
    """Their SHA-256, hexadecimal."""
    whole: bool = True
    """Whether a newline ends it."""


def raw_lines(path: Path) -> Iterator[RawLine]:
    """Yields the lines of *path* as long as it is when it is opened.

    Lines end at newline bytes only: JSON may hold other separators of lines.

    Raises:
        NotALedgerError: When it is no regular file, or cannot be read.
    """
    try:
        # Not to wait for whoever opens the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise NotALedgerError(f"{path} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotALedgerError(f"{path} is no regular file; name the file of a ledger")
        left = status.st_size
        pending = _PendingLine()
        while left > 0:
            try:
                chunk = file.read(min(_CHUNK, left))
            except OSError as error:
                raise NotALedgerError(f"{path} cannot be read: {error.strerror}") from error
            if not chunk:
                break
            left -= len(chunk)
            *ended, rest = chunk.split(b"\n")
            for part in ended:
                yield pending.ended_by(part)
            pending.add(rest)
        if pending.size:
            yield pending.ended_by(b"")._replace(whole=False)


class _PendingLine:
    """The part of a line that has been read; of a long one only its length and digest are kept."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []
        self._digest = hashlib.sha256()

    def add(self, part: bytes) -> None:
        """Appends *part*."""
        if part:
            self.size += len(part)
            self._digest.update(part)
            if self.size <= LONGEST_LINE:
                self._parts.append(part)
            else:
                self._parts.clear()

    def ended_by(self, part: bytes) -> RawLine:
        """Returns the line that ends with *part*, and begins the next one."""
        if not self.size and len(part) <= LONGEST_LINE:
            return RawLine(part, len(part), hashlib.sha256(part).hexdigest())
        self.add(part)
        line = RawLine(b"".join(self._parts), self.size, self._digest.hexdigest())
        self._begin()
        return line
