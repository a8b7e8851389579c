# SPDX-License-Identifier: Apache-2.0
"""The clocks of the machine, read together."""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path
from typing import Final

from qr_sampler.records.line_kinds import ClockLine

__all__ = ["boot_id", "clock_line"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_TIME_ERROR: Final = 5
"""What ``adjtimex`` returns when the clock is not synchronized (``sys/timex.h``)."""
_TIMEX_BYTES: Final = 512
"""More than ``struct timex`` has on any platform."""


def clock_line() -> ClockLine:
    """Returns the clocks as they stand now; between reading them less than a millisecond passes."""
    return ClockLine(time.monotonic_ns(), _boottime_ns(), time.time_ns(), _synchronized())


def boot_id() -> str:
    """Returns the kernel's name for the time since the machine was started; empty without one."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _boottime_ns() -> int | None:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return None if clock is None else time.clock_gettime_ns(clock)


def _synchronized() -> bool | None:
    """Returns what the kernel says of its clock; asking changes nothing, and needs no privilege."""
    if sys.platform != "linux":
        return None
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else bool(state != _TIME_ERROR)
