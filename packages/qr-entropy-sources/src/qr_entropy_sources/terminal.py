# SPDX-License-Identifier: Apache-2.0
"""A serial port that passes every byte on unchanged, and none from before the request."""

from __future__ import annotations

import sys
from typing import Any

if sys.platform != "win32":
    import termios

__all__ = ["Terminal"]

_INPUT, _OUTPUT, _CONTROL, _LOCAL, _CHARACTERS = 0, 1, 2, 3, 6
"""Places in what :func:`termios.tcgetattr` returns."""


class Terminal:
    """The settings and the input queue of an open terminal, which stays the caller's.

    Linux opens a serial port as it opens a keyboard: it waits for the end of a line, acts on eleven
    control characters and translates carriage returns. Raw mode switches all of it off; the speed
    stays.

    Args:
        descriptor: The open terminal.

    Raises:
        OSError: When it does not take the settings.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._make_raw()

    def flush(self) -> None:
        """Drops what waits in the input queue, and restores raw mode if somebody has ended it.

        Raises:
            OSError: When the terminal is gone.
        """
        try:
            if not _is_raw(termios.tcgetattr(self._descriptor)):
                self._make_raw()
            # Empties the buffers of the driver's side as well, by the kernel's tty_ioctl().
            termios.tcflush(self._descriptor, termios.TCIFLUSH)
        except termios.error as error:
            raise OSError(*error.args) from error

    def _make_raw(self) -> None:
        try:
            mode = _raw(termios.tcgetattr(self._descriptor))
            # At once: what waits to be sent need not leave first.
            termios.tcsetattr(self._descriptor, termios.TCSANOW, mode)
            # tcsetattr() succeeds if the terminal takes any of the settings.
            is_raw = _is_raw(termios.tcgetattr(self._descriptor))
        except termios.error as error:
            raise OSError(*error.args) from error
        if not is_raw:
            raise OSError("the terminal does not take raw mode, without which it alters bytes")


def _raw(mode: list[Any]) -> list[Any]:
    """Returns *mode* with nothing done to the input: cfmakeraw() of termios(3), and no more flags.

    The function of Python's :mod:`tty` leaves several flags of the input alone before Python 3.12.
    """
    raw = list(mode)
    raw[_INPUT] = raw[_OUTPUT] = raw[_LOCAL] = 0
    eight_bits = termios.CS8 | termios.CREAD | termios.CLOCAL
    raw[_CONTROL] = raw[_CONTROL] & ~(termios.CSIZE | termios.PARENB) | eight_bits
    raw[_CHARACTERS] = list(mode[_CHARACTERS])
    raw[_CHARACTERS][termios.VMIN] = 1
    raw[_CHARACTERS][termios.VTIME] = 0
    return raw


def _is_raw(mode: list[Any]) -> bool:
    """Returns whether the input reaches the reader unaltered and at once."""
    unaltered = not mode[_INPUT] and not mode[_LOCAL]
    return unaltered and mode[_CONTROL] & termios.CSIZE == termios.CS8
