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
from typing import Final

__all__ = ["private_files", "reason_to_distrust", "remove_stale_socket"]

_ROOT: Final = 0
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def reason_to_distrust(path: str, uid: int | None = None) -> str:
    """Returns why the listener at *path* is not trusted to be the server; ``""`` if it is.

    It is trusted when it runs as this user or as root, and as another user only where nobody else
    could have put a socket there: the socket lies in a directory that belongs to root, to this
    user or to the server's own user, all directories above it belong to root or this user, and none
    can be written to by a group or by everybody.

    Args:
        path: Where the socket is.
        uid: Whose process listens there; ``None`` when only the owner of the file is known.

    Raises:
        OSError: When there is nothing at *path*, or it may not be looked at.
    """
    if uid is None:
        uid = Path(path).stat().st_uid
    trusted = (_ROOT, os.geteuid())
    if uid in trusted:
        return ""
    # As it was written and as it is resolved: a link can be set by whoever can write beside it.
    for location in (Path(path).absolute(), Path(path).resolve()):
        for depth, folder in enumerate(location.parents):
            status = folder.stat()
            owners = trusted if depth else (*trusted, uid)
            if status.st_uid not in owners or status.st_mode & _OTHERS_WRITE:
                return (
                    f"it is served by user {uid}, and others than that user, this one and root "
                    f"could have put a socket there, for they can write to {folder}; run the "
                    "server as this user, or let it listen in a directory of its own below one "
                    "that only root can write to, such as /run/qr-sampler"
                )
    return ""


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
        # With a full backlog, connecting would block forever.
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
