# SPDX-License-Identifier: Apache-2.0
"""Reading an exact number of bytes from a device, pipe or socket before a deadline."""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Final

from qr_entropy_sources.device_kind import DeviceKind, kind_of

if sys.platform != "win32":
    import fcntl
    import termios

    from qr_entropy_sources.terminal import Terminal

__all__ = ["ByteStream"]

_CHUNK_BYTES: Final = 4096
"""Asked for at once, so that a driver that ignores O_NONBLOCK lets the deadline be checked."""

_IDLE_SECONDS: Final = 0.001
"""Pause after a device claimed to be readable and was not."""

_IN_A_WRITERS_HANDS: Final = 1 << 18
"""Discarded beyond what was queued, for a writer that was blocked with more of it; then it is taken
for one that keeps up with any reader."""


class ByteStream:
    """An open device. Not safe for use by several threads at once.

    What waited in a FIFO or in a terminal before it was opened is not delivered. A socket is
    connected to by opening it, so that whatever comes is new.

    Args:
        path: A character device, FIFO or Unix stream socket.

    Raises:
        NotADeviceError: When *path* is anything else.
        OSError: When it cannot be opened, or is a terminal that does not take raw mode.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kind = kind_of(path)
        """What the device is."""
        self._descriptor = _connect(path) if self.kind is DeviceKind.SOCKET else _open(path)
        self._terminal: Terminal | None = None
        try:
            if os.isatty(self._descriptor):
                self.kind = DeviceKind.TERMINAL
                self._terminal = Terminal(self._descriptor)
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._is_new = self.kind is DeviceKind.SOCKET

    def drop_what_waited(self, deadline_ns: int) -> None:
        """Drops what came before this call, where the kind of the device allows it.

        Args:
            deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up.

        Raises:
            TimeoutError: When the deadline passes first.
            EOFError: When the other end of a socket has hung up.
            OSError: When the device reports a fault.
        """
        if self._is_new:
            return
        if self._terminal is not None:
            self._terminal.flush()
        elif self.kind in (DeviceKind.FIFO, DeviceKind.SOCKET):
            is_open = self._read_empty(deadline_ns)
            if not is_open and self.kind is DeviceKind.SOCKET:
                raise EOFError(f"{self._path} hung up")

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
        self._is_new = False
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

    def _read_empty(self, deadline_ns: int) -> bool:
        """Reads until nothing is left, but for a writer that keeps up; False at the end."""
        left = self._waiting_bytes() + _IN_A_WRITERS_HANDS
        while left > 0:
            if time.monotonic_ns() >= deadline_ns:
                raise TimeoutError(f"{self._path} could not be read empty in time")
            try:
                piece = os.read(self._descriptor, left)
            except BlockingIOError:
                return True
            if not piece:
                return False
            left -= len(piece)
        return True

    def _waiting_bytes(self) -> int:
        answer = fcntl.ioctl(self._descriptor, termios.FIONREAD, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])

    def _await_input(self, deadline_ns: int, progress: str) -> None:
        remaining_ns = deadline_ns - time.monotonic_ns()
        if remaining_ns <= 0 or not self._poll.poll(remaining_ns / 1e6):
            raise TimeoutError(f"{self._path} delivered {progress} in time")


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)


def _connect(path: Path) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        connection.connect(str(path))
        return connection.detach()
