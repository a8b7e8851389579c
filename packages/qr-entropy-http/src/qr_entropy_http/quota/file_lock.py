# SPDX-License-Identifier: Apache-2.0
"""A lock on an open file that ends with the process that has it, however that ends."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["lock", "unlock"]


def lock(descriptor: int) -> bool:
    """Returns whether the file is locked now, without waiting for others.

    Args:
        descriptor: The file, open for reading and writing, at its beginning.

    Raises:
        OSError: When it cannot be locked, whoever has it.
    """
    if sys.platform == "win32":
        # A locked byte beyond the end of a file is allowed, and is the same error for all reasons.
        with suppress(PermissionError):
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return True
    else:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def unlock(descriptor: int) -> None:
    """Gives the lock back, also if a forked process still holds a copy of the descriptor.

    Args:
        descriptor: What :func:`lock` has locked; if it has not, nothing happens.
    """
    with suppress(OSError):
        if sys.platform == "win32":
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
