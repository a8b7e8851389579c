# SPDX-License-Identifier: Apache-2.0
"""Files that hold a secret: who else can read or change them."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["warn_of_others"]

_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

_warned: Final[set[tuple[Path, int]]] = set()


def warn_of_others(
    path: Path,
    what: str,
    logger: logging.Logger,
    *,
    mode: int | None = None,
    group_may_read: bool = True,
) -> None:
    """Logs a warning when other users of this machine can read *path*, or can change it.

    This is not an error: containers mount secrets for their only user in such modes. Warns once for
    each file and mode. The modes of Windows tell nothing of other users.

    Args:
        path: The file, which need not exist.
        what: What it holds, such as ``"API key"``.
        logger: What the warning is given to.
        mode: The file's mode, if it is known; asked for otherwise.
        group_may_read: Whether that the group can read it is no reason to warn.
    """
    if mode is None:
        try:
            mode = path.stat().st_mode
        except OSError:
            # Reported when the file is read.
            return
    mode = stat.S_IMODE(mode)
    readers = mode & (stat.S_IROTH if group_may_read else stat.S_IROTH | stat.S_IRGRP)
    if os.name == "nt" or not (readers or mode & _WRITE) or (path, mode) in _warned:
        return
    _warned.add((path, mode))
    risk = "CHANGED BY OTHER USERS"
    if readers:
        risk = "READ BY EVERY USER" if mode & stat.S_IROTH else "READ BY OTHER USERS"
    logger.warning(
        "the %s %s can be %s of this machine (mode %03o); take that away: chmod 600 %s",
        what, path, risk, mode, path,
    )  # fmt: skip
