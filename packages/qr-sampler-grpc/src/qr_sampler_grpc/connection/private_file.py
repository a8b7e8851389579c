# SPDX-License-Identifier: Apache-2.0
"""Files that hold a secret: who else can read or change them."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["warn_of_others"]

_LOGGER: Final = logging.getLogger("qr_sampler.grpc")
_READ: Final = stat.S_IROTH
_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

_warned: Final[set[tuple[Path, int]]] = set()


def warn_of_others(path: Path, what: str) -> None:
    """Logs a warning when every user of this machine can read *path*, or others can change it.

    This is not an error: containers mount secrets for their only user in such modes. Warns once for
    each file and mode. The modes of Windows tell nothing of other users.

    Args:
        path: The file, which need not exist.
        what: What it holds, such as ``"API key"``.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        # Reported when the file is read.
        return
    if os.name == "nt" or not mode & (_READ | _WRITE) or (path, mode) in _warned:
        return
    _warned.add((path, mode))
    risk = "READ BY EVERY USER" if mode & _READ else "CHANGED BY OTHER USERS"
    _LOGGER.warning(
        "the %s %s can be %s of this machine (mode %03o); take that away: chmod 600 %s",
        what, path, risk, mode, path,
    )  # fmt: skip
