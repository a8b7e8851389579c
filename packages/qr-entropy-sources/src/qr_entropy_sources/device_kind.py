# SPDX-License-Identifier: Apache-2.0
"""What a path leads to, and with it where bytes can wait that are older than a draw."""

from __future__ import annotations

import os
import re
import stat
import sys
from enum import Enum
from pathlib import Path
from typing import Final

from qr_sampler.entropy import JitClass

__all__ = ["HELD_BY_HWRNG_BYTES", "DeviceKind", "NotADeviceError", "jit_class_of", "kind_of"]

HELD_BY_HWRNG_BYTES: Final = 128
"""What may lie behind ``/dev/hwrng`` from before a read: a cache line of 64 bytes in the hw_random
core of Linux, and another one in a driver that fetches ahead, such as virtio_rng."""

_GENERATOR_OF_THE_KERNEL: Final = frozenset({(1, 8), (1, 9)})
_HARDWARE_GENERATOR: Final = (10, 183)
# Device numbers of Linux: Documentation/admin-guide/devices.txt of the kernel.

_TERMINAL_DRIVERS: Final = Path("/proc/tty/drivers")
_NUMBERS: Final = re.compile(r" (\d+) +(\d+)(?:-(\d+))? +\S+$", re.MULTILINE)
"""Major number and range of minor numbers at the end of a line, before the type of the driver."""


class NotADeviceError(OSError):
    """The path leads to something that holds old bytes and measures none."""


class DeviceKind(Enum):
    """What decides how old bytes are discarded."""

    TERMINAL = "terminal"
    """A serial port or its likeness, with an input queue that can be flushed."""
    FIFO = "FIFO"
    """A named pipe, which can be read empty."""
    SOCKET = "socket"
    """A Unix stream socket, which can be read empty."""
    HARDWARE_GENERATOR = "hardware generator"
    """``/dev/hwrng``: measures when it is read, and may hold back the rest of a cache line."""
    KERNEL_GENERATOR = "generator of the kernel"
    """``/dev/random`` and ``/dev/urandom``: compute their bytes when they are read."""
    OTHER = "character device"
    """A driver that does not reveal what it holds."""


def kind_of(path: Path) -> DeviceKind:
    """Returns what *path* leads to, without opening it.

    Systems other than Linux do not tell terminals from other character devices that way.

    Raises:
        NotADeviceError: When it is neither a character device nor a FIFO nor a socket.
        OSError: When it cannot be looked up.
    """
    status = path.stat()
    if stat.S_ISFIFO(status.st_mode):
        return DeviceKind.FIFO
    if stat.S_ISSOCK(status.st_mode):
        return DeviceKind.SOCKET
    if not stat.S_ISCHR(status.st_mode):
        raise NotADeviceError(
            f"{path} is neither a character device nor a FIFO nor a socket; a recording is not a "
            "measurement"
        )
    return _character_device(status.st_rdev) if sys.platform == "linux" else DeviceKind.OTHER


def jit_class_of(kind: DeviceKind, flush_bytes: int) -> JitClass:
    """Returns how far the just-in-time claim reaches for a device that is flushed by its kind.

    Args:
        kind: What the device is.
        flush_bytes: Bytes that are read and discarded before each draw.
    """
    if kind is DeviceKind.KERNEL_GENERATOR:
        return JitClass.PSEUDO
    if kind is DeviceKind.HARDWARE_GENERATOR:
        return JitClass.FLUSHED if flush_bytes >= HELD_BY_HWRNG_BYTES else JitClass.UNKNOWN
    return JitClass.UNKNOWN if kind is DeviceKind.OTHER else JitClass.FLUSHED


def _character_device(device: int) -> DeviceKind:
    number = os.major(device), os.minor(device)
    if number in _GENERATOR_OF_THE_KERNEL:
        return DeviceKind.KERNEL_GENERATOR
    if number == _HARDWARE_GENERATOR:
        return DeviceKind.HARDWARE_GENERATOR
    return DeviceKind.TERMINAL if _is_terminal(*number) else DeviceKind.OTHER


def _is_terminal(major: int, minor: int) -> bool:
    """Returns whether a driver of terminals has the number; proc(5) describes the table."""
    try:
        table = _TERMINAL_DRIVERS.read_text("ascii", errors="replace")
    except OSError:
        # Hidden in some containers; then the opened device shows its kind.
        return False
    for its_major, first, last in _NUMBERS.findall(table):
        if int(its_major) == major and int(first) <= minor <= int(last or first):
            return True
    return False
