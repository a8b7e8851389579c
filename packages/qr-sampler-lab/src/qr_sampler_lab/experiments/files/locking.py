# SPDX-License-Identifier: Apache-2.0
"""Files that one process at a time may append to."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qr_sampler_lab.experiments.files.errors import RecordError

if sys.platform != "win32":
    import fcntl

__all__ = ["LOCK_TIMEOUT_S", "locked", "locked_directory"]

LOCK_TIMEOUT_S: Final = 10.0
"""Longest wait for another process; appending a line takes milliseconds."""

_PAUSE_S: Final = 0.01


@contextlib.contextmanager
def locked(path: Path, *, create: bool, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[int]:
    """Yields a descriptor of a file that nobody else has through this function at the same time.

    The lock is ``flock``'s: it ends with the process that has it, however that ends, and is not
    meant for network file systems.

    Args:
        path: A regular file, readable by its owner only if it is made here.
        create: Whether it must not exist before (then it is made), or must.
        timeout_s: Longest wait.

    Raises:
        RecordError: When there is no such file or it cannot be made, when others have it all the
            time, or when the system has no ``flock``.
    """
    flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT | os.O_EXCL if create else 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o600)
    except OSError as error:
        raise RecordError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RecordError(f"{path} is no regular file")
        _wait_for(descriptor, path, timeout_s)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: Path, timeout_s: float) -> None:
    if sys.platform == "win32":
        raise RecordError("experiments need flock, which Windows does not have; use WSL")
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise RecordError(
                    f"another process has held {path} for {timeout_s:g} s; end it, or wait"
                ) from error
            time.sleep(_PAUSE_S)
        except OSError as error:
            raise RecordError(f"{path} cannot be locked: {error.strerror}") from error
        else:
            return


@contextlib.contextmanager
def locked_directory(directory: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Keeps others that call this function for the same directory out.

    Raises:
        RecordError: As :func:`locked`.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise RecordError(f"{directory} cannot be opened: {error.strerror}") from error
    try:
        _wait_for(descriptor, directory, timeout_s)
        yield
    finally:
        os.close(descriptor)
