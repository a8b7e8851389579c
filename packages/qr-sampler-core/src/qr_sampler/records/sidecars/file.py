# SPDX-License-Identifier: Apache-2.0
"""A file beside each file of a ledger, which loses pieces rather than make the ledger wait."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from pathlib import Path
from typing import Final

from qr_sampler.records.files.append_file import AppendFile

__all__ = ["SidecarFile"]

logger = logging.getLogger("qr_sampler.records.ledger")

_AT_ONCE_BYTES: Final = 2**20
"""So many bytes are collected before they are written."""

_MOST_WAITING_BYTES: Final = 2**26
"""Most bytes that wait for a disk that refuses; what comes after them is lost."""


class SidecarFile:
    """Appends pieces to a file that is called like the ledger's, with another ending.

    It is made with its first piece, readable by its owner only. A forked process leaves to the one
    above it what waits there. One thread at a time may use this.

    Args:
        suffix: What takes the place of ``.jsonl`` in the name.
        beginning: What every file begins with.
        sync_s: Time in seconds after which a write makes sure that the disk itself has everything;
            it never does if not given.
    """

    def __init__(self, suffix: str, beginning: bytes, *, sync_s: float = math.inf) -> None:
        self._suffix = suffix
        self._beginning = beginning
        self._sync_s = sync_s
        self._synced_s = time.monotonic()
        self._file: AppendFile | None = None
        self._reported = False
        self._sync_failed = False
        """Whether the disk could not say that it has what was written."""
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._rest = b""
        """What is to be written before the pieces that wait: the beginning of the file, or what
        the disk has not taken yet of a piece."""
        self._in_piece = False
        """Whether it is of a piece."""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0

    def follow(self, ledger: Path) -> None:
        """Turns to the file beside *ledger*, in which the next lines stand.

        Args:
            ledger: The file of the ledger.
        """
        if self._pid != os.getpid():
            self._reset()
            self.release()
            self._file = None
        path = ledger.with_name(ledger.stem + self._suffix)
        if self._file is None or self._file.path != path or self._file.fate() is not None:
            self._turn_to(path)

    def put(self, piece: bytes) -> None:
        """Takes a piece, to be written soon.

        Args:
            piece: What is to be appended, whole or not at all unless the disk refuses in between.
        """
        if self._waiting and self._waiting_bytes + len(piece) > _MOST_WAITING_BYTES:
            self._lost += 1
            return
        self._waiting.append(piece)
        self._waiting_bytes += len(piece)
        if self._waiting_bytes >= _AT_ONCE_BYTES:
            self._write()

    def flush(self) -> int:
        """Writes what waits, as far as the disk takes it; never raises for what that does.

        Returns:
            The number of pieces that have been given up since the last call.
        """
        self._write()
        if self._file is not None and time.monotonic() - self._synced_s >= self._sync_s:
            self._sync(self._file)
        lost, self._lost = self._lost, 0
        return lost

    def end(self) -> int:
        """Writes what waits and has the disk keep it; gives up what it does not take.

        Returns:
            The number of pieces that have been given up since :meth:`flush`.
        """
        if self._pid != os.getpid() or self._file is None:
            return 0
        self._write()
        self._sync(self._file)
        self.release()
        self._give_up()
        lost, self._lost = self._lost, 0
        return lost

    def release(self) -> None:
        """Closes the file; writing more opens it again."""
        if self._file is not None and (error := self._file.release()) is not None:
            self._report(error)

    def _turn_to(self, path: Path) -> None:
        before = self._file
        if before is not None:
            if before.path != path and before.fate() is None:
                self._write()
            self._sync(before)
        self.release()
        if before is not None and before.path != path:
            # Of lines in another file of the ledger.
            self._give_up()
        # A piece that has been begun ends where its file does.
        self._lost += self._in_piece
        self._in_piece = False
        self._file = AppendFile(path, fresh=not os.path.lexists(path))
        self._rest = b"" if _has_content(path) else self._beginning

    def _give_up(self) -> None:
        """Counts what the disk has not taken as lost.

        What is left of a piece that was begun is still written before others, if any come.
        """
        self._lost += len(self._waiting) + self._in_piece
        self._waiting.clear()
        self._waiting_bytes = 0
        self._in_piece = False

    def _write(self) -> None:
        file = self._file
        while file is not None and (self._waiting or self._in_piece):
            if not self._rest:
                self._rest, self._in_piece = self._waiting.popleft(), True
                self._waiting_bytes -= len(self._rest)
            written, error = file.append(self._rest)
            self._rest = self._rest[written:]
            self._in_piece &= bool(self._rest)
            if error is not None:
                self._report(error)
                return
        self._reported &= self._sync_failed

    def _sync(self, file: AppendFile) -> None:
        self._synced_s = time.monotonic()
        self._sync_failed = False
        try:
            file.sync()
        except OSError as error:
            self._sync_failed = True
            self._report(error)

    def _report(self, error: OSError) -> None:
        """Says what went wrong, once until the disk accepts everything again."""
        if not self._reported and self._file is not None:
            self._reported = True
            logger.error("cannot write to %s: %s; the ledger goes on", self._file.path, error)


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
