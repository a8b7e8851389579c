# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all, and never through a link."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["is_replaceable", "write_whole"]

_NO_HARD_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""How file systems refuse a hard link that they have no concept of."""
_LONGEST_NAME_BYTES: Final = 64
"""Of what the name of a temporary file repeats; file systems allow 255 bytes in all."""


def write_whole(path: Path, text: str, *, replace: bool = False, mode: int = 0o666) -> None:
    """Writes *text* to a new file beside *path*, then gives it that name.

    The file has the owner and the mode of a new one, whatever it replaces, and a link at *path* is
    replaced, not followed. A reader sees the old content or the new one, never a part.

    Args:
        path: The file.
        text: Its content, written as UTF-8.
        replace: Whether a regular file or a link of that name gives way.
        mode: Permissions of the file before the umask.

    Raises:
        FileExistsError: When there is something at *path* that does not give way.
        OSError: When the file cannot be written; *path* is then as it was.
    """
    if os.path.lexists(path) and not (replace and is_replaceable(path)):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with _written_beside(path, text, mode) as fresh:
        if replace:
            fresh.replace(path)
        else:
            _give_free_name(fresh, path)


def is_replaceable(path: Path) -> bool:
    """Returns whether *path* is a regular file or a link, not a directory, a device or a socket."""
    kind = path.lstat().st_mode
    return stat.S_ISREG(kind) or stat.S_ISLNK(kind)


@contextlib.contextmanager
def _written_beside(path: Path, text: str, mode: int) -> Iterator[Path]:
    """Yields a new file in the directory of *path*, and removes it if it has kept its name."""
    stem = path.name.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore")
    fresh = path.with_name(f".{stem}.{secrets.token_hex(8)}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def _give_free_name(fresh: Path, path: Path) -> None:
    """Renames *fresh* to *path* unless something has that name by now."""
    try:
        # Unlike a renaming, a hard link never replaces anything.
        path.hardlink_to(fresh)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        fresh.replace(path)
