# SPDX-License-Identifier: Apache-2.0
"""A serial port of one's own: raw, read and written before a deadline, and closed to others."""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress
from typing import Final

import serial

from qr_sampler.entropy.raw_terminal import raw_mode
from qr_sampler.errors import ConfigError

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["SerialPort", "require_serial_ports"]

_CHUNK_BYTES: Final = 1 << 16

_OUTPUT_TRIES: Final = 10
_OUTPUT_PAUSE_S: Final = 0.005
"""The last commands take a few milliseconds to leave, also at 9600 baud."""


def require_serial_ports() -> None:
    """Checks that this system has serial ports with descriptors.

    Raises:
        ConfigError: When it has none.
    """
    if sys.platform == "win32":
        raise ConfigError(
            "generators behind serial ports are read on POSIX systems only; on Windows, run the "
            "engine in WSL, or serve the generator from there ('qr-sampler serve-entropy') and set "
            "QR_ENTROPY_SOURCE_TYPE=quantum_grpc"
        )


class SerialPort:
    """An open serial port, eight bits without parity. Not for several threads at once.

    pyserial sets it up and locks it. Reading and writing go to the descriptor directly: pyserial
    waits with ``select``, which refuses descriptors beyond 1,023, and servers have more than that.

    Args:
        path: The port, for example ``/dev/ttyACM0``.
        baud: Its speed; USB CDC devices take any.

    Raises:
        OSError: When it cannot be opened, is not a serial port, or is in use by another program.
    """

    def __init__(self, path: str, baud: int) -> None:
        self.path = path
        try:
            self._serial = serial.Serial(path, baud, timeout=0, exclusive=True)
        except (NotImplementedError, ValueError, termios.error) as error:
            raise OSError(f"{path} does not take {baud} baud: {error}") from error
        try:
            self._descriptor: int = self._serial.fileno()
            self._make_raw()
            # Programs that ask for no lock are refused as well, but for those of root; a lock alone
            # binds those who ask.
            fcntl.ioctl(self._descriptor, termios.TIOCEXCL)
        except BaseException:
            self.close()
            raise
        self._readable = select.poll()
        self._readable.register(self._descriptor, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(self._descriptor, select.POLLOUT)

    def drop_input(self) -> None:
        """Drops what waits in the terminal and in its driver.

        Raises:
            OSError: When the port is gone.
        """
        try:
            termios.tcflush(self._descriptor, termios.TCIFLUSH)
        except termios.error as error:
            raise OSError(*error.args) from error

    def settle(self, quiet_s: float, deadline_ns: int) -> None:
        """Drops input until none has come for *quiet_s* seconds.

        Raises:
            TimeoutError: When the other end does not fall silent before the deadline.
            OSError: When the port is gone.
        """
        while self._readable.poll(1000 * quiet_s):
            if time.monotonic_ns() >= deadline_ns:
                raise TimeoutError(f"{self.path} does not fall silent")
            with suppress(BlockingIOError):
                if not os.read(self._descriptor, _CHUNK_BYTES):
                    raise OSError(f"{self.path} hung up")

    def read_into(self, received: bytearray, n: int, deadline_ns: int) -> None:
        """Appends exactly *n* bytes to *received*, which has those that came also after an error.

        Args:
            received: Where the bytes go.
            n: How many.
            deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up.

        Raises:
            TimeoutError: When the deadline passes first.
            OSError: When the port is gone.
        """
        before = len(received)
        while (missing := n - (len(received) - before)) > 0:
            left_ms = (deadline_ns - time.monotonic_ns()) / 1e6
            if left_ms <= 0 or not self._readable.poll(left_ms):
                raise TimeoutError(f"{self.path} delivered {n - missing} of {n} bytes in time")
            try:
                piece = os.read(self._descriptor, min(missing, _CHUNK_BYTES))
            except BlockingIOError:
                continue
            if not piece:
                raise OSError(f"{self.path} hung up")
            received += piece

    def read(self, n: int, deadline_ns: int) -> bytes:
        """Returns exactly *n* bytes.

        Raises:
            TimeoutError: When the deadline passes first.
            OSError: When the port is gone.
        """
        received = bytearray()
        self.read_into(received, n, deadline_ns)
        return bytes(received)

    def write(self, data: bytes, deadline_ns: int) -> None:
        """Sends *data*.

        Raises:
            TimeoutError: When the deadline passes before the system has taken all of it.
            OSError: When the port is gone.
        """
        while data:
            left_ms = (deadline_ns - time.monotonic_ns()) / 1e6
            if left_ms <= 0 or not self._writable.poll(left_ms):
                raise TimeoutError(f"{self.path} takes no commands")
            with suppress(BlockingIOError):
                data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        """Gives the port back, also if a forked process still holds a copy of the descriptor."""
        if self._serial.is_open:
            with suppress(OSError):
                fcntl.ioctl(self._descriptor, termios.TIOCNXCL)
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._give_up_output()
            self._serial.close()

    def _give_up_output(self) -> None:
        """Drops commands that a hung device does not take: close() waits 30 s for them on Linux."""
        with suppress(OSError, termios.error):
            for _ in range(_OUTPUT_TRIES):
                answer = fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, bytes(4))
                if answer == bytes(4):
                    return
                time.sleep(_OUTPUT_PAUSE_S)
            termios.tcflush(self._descriptor, termios.TCOFLUSH)

    def _make_raw(self) -> None:
        """Switches off what pyserial leaves on."""
        try:
            # pyserial also sets VMIN=0, with which other programs find the port at its end at once.
            mode = raw_mode(termios.tcgetattr(self._descriptor))
            termios.tcsetattr(self._descriptor, termios.TCSANOW, mode)
        except termios.error as error:
            raise OSError(*error.args) from error
