# SPDX-License-Identifier: Apache-2.0
"""The file behind a Unix domain socket: who may use it, and whether it is in use."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

__all__ = ["private_files", "remove_stale_socket"]


def remove_stale_socket(path: Path) -> None:
    """Removes the socket that a dead server left at *path*, and nothing else.

    Raises:
        FileExistsError: When something other than a socket is there.
        OSError: With ``EADDRINUSE`` when a server is listening there.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(
            errno.EEXIST, "not a socket; move it away or listen elsewhere", str(path)
        )
    if _is_listening(path):
        raise OSError(
            errno.EADDRINUSE, "another server listens here; stop it or listen elsewhere", str(path)
        )
    path.unlink(missing_ok=True)


def _is_listening(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        # Where as many wait as may, connecting would wait with them for ever.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True
    return True


@contextmanager
def private_files() -> Iterator[None]:
    """Lets only this user open the files, and sockets, that are created within the block."""
    # Changed mode bits after the creation would leave a moment in which others can connect.
    previous = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(previous)
