# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a serial port, and what to do about it, in the words of its settings."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Reasons", "check_access"]


def check_access(path: str) -> None:
    """Raises what opening *path* would raise if it is missing or forbidden, without opening it.

    Raises:
        OSError: When it is.
    """
    if not os.access(path, os.R_OK | os.W_OK):
        Path(path).stat()
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


@dataclass(frozen=True, slots=True)
class Reasons:
    """Explains errors of a source.

    Args:
        prefix: What its settings begin with, for example ``"QR_SERIAL_"``.
        port: The port as it is set; empty if none is.
    """

    prefix: str
    port: str

    def of(self, error: Exception, timeout_ms: int) -> str:
        """Returns what went wrong and what to do about it."""
        if isinstance(error, TimeoutError):
            return f"{error}; {self.advice_on_time(timeout_ms)}"
        code, port = getattr(error, "errno", None), self.port or "its port"
        if code == errno.ENOENT:
            return f"{port} does not exist; plug the device in or set {self.prefix}PORT"
        if code in (errno.EIO, errno.ENODEV, errno.ENXIO):
            return f"{port} is gone ({os.strerror(code)}); plug the device in again"
        if code == errno.EACCES:
            return f"no permission to use {port}; grant it by a udev rule"
        if code in (errno.EWOULDBLOCK, errno.EBUSY):
            return f"{port} is in use by another program"
        return f"{error}"

    def of_busy(self, timeout_ms: int) -> str:
        """Returns what to say to a draw that has waited too long for others."""
        return f"the device is busy with other draws; {self.advice_on_time(timeout_ms)}"

    def advice_on_time(self, timeout_ms: int) -> str:
        """Returns what to do when time was too short."""
        return f"check the device or raise {self.prefix}TIMEOUT_MS={timeout_ms}"
