# SPDX-License-Identifier: Apache-2.0
"""Digests of files that were hashed before, so that gigabytes need not be read at every start."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Final

from qr_sampler.whole_file import write_whole

__all__ = ["DigestCache", "default_cache", "identity_of"]

_MOST_ENTRIES: Final = 4_096
_MOST_BYTES: Final = 2**22
_DIGEST: Final = re.compile("[0-9a-f]{64}")

_Entry = tuple[list[int], str]


def default_cache() -> Path | None:
    """Returns the file of the current user that keeps digests; ``None`` without a home."""
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(caches) / "qr-sampler" / "model-digests.json"


def identity_of(status: os.stat_result) -> list[int]:
    """Returns what tells whether a file is still the same.

    A program may set the time of the last modification at will, but not that of the last change
    of the file's status.
    """
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


class DigestCache:
    """Keeps the digests of files by path, size, times and inode in a private file.

    A damaged cache, or one that others may write to, counts as empty.

    Args:
        path: The file; ``None`` keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._entries = {} if path is None else _entries_in(path)
        self._fresh: dict[str, _Entry] = {}

    def get(self, path: Path, identity: list[int]) -> str | None:
        """Returns the digest of the file at *path* if it is known.

        Args:
            path: The file.
            identity: What it is now, from :func:`identity_of`.
        """
        known = self._entries.get(str(path.resolve()))
        return known[1] if known is not None and known[0] == identity else None

    def put(self, path: Path, identity: list[int], digest: str) -> None:
        """Keeps the *digest* of a file, to be written by :meth:`save`.

        Args:
            path: The file.
            identity: What it was when it was read.
            digest: Its SHA-256, hexadecimal.
        """
        self._fresh[str(path.resolve())] = (identity, digest)

    def save(self) -> None:
        """Writes what is new. A cache that cannot be written is done without."""
        if self._path is None or not self._fresh:
            return
        # Another process may have written meanwhile.
        entries = {**_entries_in(self._path), **self._fresh}
        latest = dict(list(entries.items())[-_MOST_ENTRIES:])
        with contextlib.suppress(OSError, ValueError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(latest), replace=True, mode=0o600)


def _entries_in(path: Path) -> dict[str, _Entry]:
    try:
        with path.open("rb") as file:
            if not _is_private(os.fstat(file.fileno())):
                return {}
            data = file.read(_MOST_BYTES + 1)
        values = json.loads(data) if len(data) <= _MOST_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {name: (entry[0], entry[1]) for name, entry in values.items() if _is_entry(entry)}


def _is_private(status: os.stat_result) -> bool:
    """Whether a regular file can have been written by this user alone."""
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return (
        stat.S_ISREG(status.st_mode) and own and not (os.name == "posix" and status.st_mode & 0o022)
    )


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    identity, digest = entry
    return (
        isinstance(identity, list)
        and all(type(number) is int for number in identity)
        and isinstance(digest, str)
        and _DIGEST.fullmatch(digest) is not None
    )
