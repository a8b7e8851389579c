# SPDX-License-Identifier: Apache-2.0
"""The mode of a terminal in which every byte is passed on as it is. POSIX systems only."""

from __future__ import annotations

import sys
from typing import Any

if sys.platform != "win32":
    import termios

__all__ = ["is_raw", "raw_mode"]

_INPUT, _OUTPUT, _CONTROL, _LOCAL, _CHARACTERS = 0, 1, 2, 3, 6
"""Places in what :func:`termios.tcgetattr` returns."""


def raw_mode(mode: list[Any]) -> list[Any]:
    """Returns *mode* with nothing done to the input: cfmakeraw() of termios(3), and no more flags.

    The function of Python's :mod:`tty` leaves several flags of the input alone before Python 3.12.

    Args:
        mode: What :func:`termios.tcgetattr` has returned; it stays as it is.
    """
    raw = list(mode)
    raw[_INPUT] = raw[_OUTPUT] = raw[_LOCAL] = 0
    eight_bits = termios.CS8 | termios.CREAD | termios.CLOCAL
    raw[_CONTROL] = raw[_CONTROL] & ~(termios.CSIZE | termios.PARENB) | eight_bits
    raw[_CHARACTERS] = list(mode[_CHARACTERS])
    raw[_CHARACTERS][termios.VMIN] = 1
    raw[_CHARACTERS][termios.VTIME] = 0
    return raw


def is_raw(mode: list[Any]) -> bool:
    """Returns whether the input reaches the reader unaltered and at once.

    Args:
        mode: What :func:`termios.tcgetattr` has returned.
    """
    unaltered = not mode[_INPUT] and not mode[_LOCAL]
    return unaltered and mode[_CONTROL] & termios.CSIZE == termios.CS8
