# SPDX-License-Identifier: Apache-2.0
"""The head of a file that grows, without reading it again."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

import msgspec

from qr_sampler.records.chain import head_of
from qr_sampler.records.reader import LONGEST_LINE

__all__ = ["GrowingFile", "Head"]

_LOGGER: Final = logging.getLogger("qr_sampler_lab.anchors")
_PIECE_BYTES: Final = 2**20


class _Line(msgspec.Struct):
    """The part of a line that says where it stands."""

    kind: str
    n: int
    prev: str


_decode: Final = msgspec.json.Decoder(_Line).decode


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain of a file stands."""

    n: int
    """Number of the line."""
    digest: str
    """SHA-256 of the line: its head."""
    line: bytes
    """The line, without its newline."""
    closes: bool
    """Whether it ends the file in order."""


class GrowingFile:
    """A chained file that another process writes.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self._pending = b""
        self._head: Head | None = None

    def head(self) -> Head | None:
        """Returns the latest whole line, after reading what has been added; ``None`` without one.

        A file that was replaced or cut short is read from its beginning.

        Raises:
            OSError: When it cannot be read.
            ValueError: When it is no regular file, or a line has more than eight mebibytes.
        """
        descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with FileIO(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{self.path} is no regular file")
            self._begin((status.st_dev, status.st_ino), status.st_size)
            file.seek(self._offset)
            self._read(file, status.st_size - self._offset)
        return self._head

    def _begin(self, identity: tuple[int, int], size: int) -> None:
        """Begins anew if the file is not the one that was read before."""
        if self._identity == identity and size >= self._offset:
            return
        if self._identity is not None:
            _LOGGER.warning(
                "%s was replaced or cut short; it is read from its beginning, and its anchors will "
                "tell of the difference",
                self.path,
            )
        self._identity, self._offset, self._pending, self._head = identity, 0, b"", None

    def _read(self, file: FileIO, left: int) -> None:
        while left > 0 and (piece := file.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            self._offset += len(piece)
            *lines, self._pending = (self._pending + piece).split(b"\n")
            for line in reversed(lines):
                if self._take(line):
                    break
            if len(self._pending) > LONGEST_LINE:
                raise ValueError(f"{self.path} has a line of more than {LONGEST_LINE} bytes")

    def _take(self, line: bytes) -> bool:
        """Takes a line for the latest one, unless it was cut short."""
        try:
            told = _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        self._head = Head(told.n, head_of(line), line, told.kind == "close")
        return True
