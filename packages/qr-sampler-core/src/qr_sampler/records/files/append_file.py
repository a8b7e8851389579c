# SPDX-License-Identifier: Apache-2.0
"""A file that grows at its end, and notices what others do to it."""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path
from typing import Final, Literal

__all__ = ["AppendFile", "Fate"]

Fate = Literal["removed", "moved", "cut", "taken"]
"""What others have done to a file: ``taken`` when its name belonged to them before it was made."""

_sync_data: Final = getattr(os, "fdatasync", os.fsync)
"""Windows and macOS only know the call that writes the metadata, too."""


class AppendFile:
    """Bytes are appended with as few calls as the operating system allows.

    The file is made when there is something to write, readable by its owner only, and its directory
    with it.

    Args:
        path: Where it is.
        fresh: Whether it must not exist before.
    """

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self.size = 0
        """Number of bytes that it has at least."""
        self._fresh = fresh
        self._file: FileIO | None = None
        self._identity: os.stat_result | None = None
        """What it was when it was opened first; ``None`` until then."""
        self._unsynced = False

    def append(self, data: bytes) -> tuple[int, OSError | None]:
        """Appends *data*; returns how many of its bytes are in the file, and why not all of them.

        After a failure the file is opened anew: its handle may be what has become useless.
        """
        written = 0
        failure: OSError | None = None
        try:
            file = self._open()
            while written < len(data):
                written += file.write(data[written:] if written else data)
        except OSError as error:
            failure = error
        self.size += written
        self._unsynced |= written > 0
        if failure is not None:
            self.release()
        return written, failure

    def fate(self) -> Fate | None:
        """Returns what others have done to the file, ``None`` if nothing."""
        if self._identity is None:
            return "taken" if self._fresh and os.path.lexists(self.path) else None
        try:
            there = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return self._where_it_went()
        except OSError:
            # Whether bytes can still be written is for the next write to say.
            return None
        if not os.path.samestat(there, self._identity):
            return self._where_it_went()
        return "cut" if stat.S_ISREG(there.st_mode) and there.st_size < self.size else None

    def sync(self) -> None:
        """Waits until the disk itself has what was appended.

        Raises:
            OSError: When the disk cannot say so; some of it may be lost.
        """
        regular = self._identity is not None and stat.S_ISREG(self._identity.st_mode)
        if self._unsynced and regular:
            _sync_data(self._open().fileno())
            self._unsynced = False

    def release(self) -> OSError | None:
        """Closes the handle, which the next call opens again; returns what went wrong."""
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            return error
        return None

    def _open(self) -> FileIO:
        if self._file is None:
            flags = os.O_RDWR | os.O_APPEND
            if self._identity is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                flags |= os.O_CREAT | (os.O_EXCL if self._fresh else 0)
            descriptor = os.open(self.path, flags, 0o600)
            self._file = FileIO(descriptor, "a+")
            if self._identity is None:
                self._identity = os.fstat(descriptor)
                self.size = self._identity.st_size
        return self._file

    def _where_it_went(self) -> Fate:
        if self._file is None:
            return "removed"
        there = os.fstat(self._file.fileno())
        if not there.st_nlink:
            return "removed"
        return "cut" if stat.S_ISREG(there.st_mode) and there.st_size < self.size else "moved"
