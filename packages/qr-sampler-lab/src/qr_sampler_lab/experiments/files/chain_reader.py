# SPDX-License-Identifier: Apache-2.0
"""Reads chained lines, each judged once, however often the file is looked at."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from qr_sampler.records.chain import ZERO_HEAD, head_of
from qr_sampler_cli.audit.reading.decoding import decode_object
from qr_sampler_cli.audit.reading.lines import LONGEST_LINE, RawLine
from qr_sampler_lab.experiments.files.errors import RecordError

__all__ = ["ChainReader", "Entry"]


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


class ChainReader:
    """Follows the chain through a file that grows.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n = 0
        """Number of lines so far."""
        self.head = ZERO_HEAD
        """Digest of the last of them."""
        self.torn_bytes = 0
        """Length of an unfinished line behind them."""
        self._number = 0
        self._position = 0
        self._last_size = 0

    def goes_on(self) -> bool:
        """Whether the last line that was read is still where it was."""
        if not self.n:
            return False
        try:
            with self._opened() as file:
                file.seek(self._position - self._last_size - 1)
                data = file.read(self._last_size + 1)
        except (OSError, RecordError):
            return False
        return data[-1:] == b"\n" and head_of(data[:-1]) == self.head

    def wrote(self, line: bytes, before: int = 0) -> Entry:
        """Takes a line that has just been appended as read, and returns its entry.

        Args:
            line: The line, without its newline.
            before: Number of bytes that were appended before it and belong to no line.
        """
        self._number += 1 + (before > 0)
        self._position += before + len(line) + 1
        return self._entry(RawLine(line, len(line), head_of(line)))

    def news(self) -> Iterator[Entry]:
        """Yields the lines behind those that were read before; a torn one is no line.

        Raises:
            RecordError: At the first line that does not stand in its place, or when the file cannot
                be read.
        """
        self.torn_bytes = 0
        with self._opened() as file:
            before: RawLine | None = None
            for raw in self._raw_lines(file):
                if before is not None:
                    yield from self._judged(before, raw)
                before = raw
            if before is not None:
                yield from self._judged(before, None)

    def _opened(self) -> BinaryIO:
        try:
            # Not to wait for whoever opens the other end of a pipe.
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise RecordError(f"{self.path} cannot be read: {error.strerror}") from error
        file = os.fdopen(descriptor, "rb")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            file.close()
            raise RecordError(f"{self.path} is no regular file")
        file.seek(self._position)
        return file

    def _raw_lines(self, file: BinaryIO) -> Iterator[RawLine]:
        number = self._number
        while True:
            number += 1
            try:
                # One byte more than a line may have, and its newline.
                data = file.readline(LONGEST_LINE + 2)
            except OSError as error:
                raise RecordError(f"{self.path} cannot be read: {error.strerror}") from error
            if not data:
                return
            line = data.removesuffix(b"\n")
            if len(line) > LONGEST_LINE:
                raise RecordError(
                    f"{self.path}:{number}: it has more than {LONGEST_LINE:,} bytes, and these are "
                    "the most"
                )
            yield RawLine(line, len(line), head_of(line), whole=len(line) < len(data))

    def _judged(self, raw: RawLine, after: RawLine | None) -> Iterator[Entry]:
        """Yields the entry of a line, none of one that was cut short."""
        if not raw.whole:
            self.torn_bytes = raw.size
            return
        self._number += 1
        self._position += raw.size + 1
        if not _is_torn(raw, after):
            yield self._entry(raw)

    def _entry(self, raw: RawLine) -> Entry:
        values, fault = decode_object(raw)
        if values is None or fault:
            raise self._broken(fault)
        prev = self.head if self.n else values.get("seal") or ZERO_HEAD
        if values.get("n") != self.n or values.get("prev") != prev:
            raise self._broken("it does not follow the line before it")
        if not isinstance(values.get("kind"), str):
            raise self._broken("its kind is missing")
        self.n, self.head, self._last_size = self.n + 1, raw.head, raw.size
        return Entry(values["kind"], self.n - 1, values["prev"], raw.head, values)

    def _broken(self, reason: str) -> RecordError:
        return RecordError(
            f"{self.path}:{self._number}: {reason}; lines were changed, removed or put in"
        )


def _is_torn(raw: RawLine, after: RawLine | None) -> bool:
    """Whether a gap tells of a line that it was cut short."""
    if after is None or not after.data.startswith(b'{"kind":"gap"'):
        return False
    gap, fault = decode_object(after)
    return gap is not None and not fault and 0 < raw.size == gap.get("torn_bytes")
