# SPDX-License-Identifier: Apache-2.0
"""Reading an exact number of bytes from a device, pipe or socket before a deadline."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import termios
import time
import tty
from pathlib import Path
from typing import Final

__all__ = ["ByteStream", "NotADeviceError", "require_device"]

_CHUNK_BYTES: Final = 4096
"""Asked for at once, so that a driver that ignores O_NONBLOCK lets the deadline be checked."""

_IDLE_SECONDS: Final = 0.001
"""Pause after a device claimed to be readable and was not."""

_DEFAULT_PIPE_BYTES: Final = 65_536


class NotADeviceError(OSError):
    """The path leads to something that holds old bytes and measures none."""


def require_device(path: Path) -> int:
    """Returns the mode bits of a character device, FIFO or socket, without opening it.

    Raises:
        NotADeviceError: When *path* is anything else.
        OSError: When it cannot be looked up.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise NotADeviceError(
            f"{path} is neither a character device nor a FIFO nor a socket; a recording is not a "
            "measurement"
        )
    return mode


class ByteStream:
    """An open device. Not safe for use by several threads at once.

    What was waiting before the stream was opened is not delivered: a FIFO is emptied, the input
    queue of a terminal is flushed. A terminal is set to raw mode, so that no byte is altered.

    Args:
        path: A character device, FIFO or Unix stream socket.

    Raises:
        NotADeviceError: When *path* is anything else.
        OSError: When it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = _open(path)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def read(self, n: int, deadline_ns: int) -> bytes:
        """Returns exactly *n* bytes.

        Args:
            n: Number of bytes.
            deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up.

        Raises:
            TimeoutError: When the deadline passes first. Bytes read so far are lost.
            EOFError: When the stream ends first.
            OSError: When the device reports a fault.
        """
        received = bytearray()
        while len(received) < n:
            self._await_input(deadline_ns, f"{len(received)} of {n} bytes")
            try:
                piece = os.read(self._descriptor, min(n - len(received), _CHUNK_BYTES))
            except BlockingIOError:
                # /dev/hwrng has no poll operation: it always looks readable.
                time.sleep(_IDLE_SECONDS)
                continue
            if not piece:
                raise EOFError(f"{self._path} ended after {len(received)} of {n} bytes")
            received += piece
        return bytes(received)

    def close(self) -> None:
        """Closes the device."""
        os.close(self._descriptor)

    def _await_input(self, deadline_ns: int, progress: str) -> None:
        remaining_ns = deadline_ns - time.monotonic_ns()
        if remaining_ns <= 0 or not self._poll.poll(remaining_ns / 1e6):
            raise TimeoutError(f"{self._path} delivered {progress} in time")


def _open(path: Path) -> int:
    mode = require_device(path)
    if stat.S_ISSOCK(mode):
        return _connect(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if stat.S_ISFIFO(mode):
            _empty(descriptor)
        elif os.isatty(descriptor):
            _make_raw(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _connect(path: Path) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        connection.connect(str(path))
        return connection.detach()


def _empty(descriptor: int) -> None:
    """Reads away what a FIFO holds; a writer that keeps up is cut off at the FIFO's capacity."""
    get_size = getattr(fcntl, "F_GETPIPE_SZ", None)
    left = _DEFAULT_PIPE_BYTES if get_size is None else fcntl.fcntl(descriptor, get_size)
    while left > 0:
        try:
            piece = os.read(descriptor, left)
        except BlockingIOError:
            return
        if not piece:
            return
        left -= len(piece)


def _make_raw(descriptor: int) -> None:
    try:
        tty.setraw(descriptor, termios.TCSAFLUSH)
    except termios.error as error:
        raise OSError(*error.args) from error
