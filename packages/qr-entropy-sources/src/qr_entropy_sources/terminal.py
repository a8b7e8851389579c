# SPDX-License-Identifier: Apache-2.0
"""A serial port that passes every byte on unchanged, and none from before the request."""

from __future__ import annotations

import sys

from qr_sampler.entropy.raw_terminal import is_raw, raw_mode

if sys.platform != "win32":
    import termios

__all__ = ["Terminal"]


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
            if not is_raw(termios.tcgetattr(self._descriptor)):
                self._make_raw()
            # Empties the buffers of the driver's side as well, by the kernel's tty_ioctl().
            termios.tcflush(self._descriptor, termios.TCIFLUSH)
        except termios.error as error:
            raise OSError(*error.args) from error

    def _make_raw(self) -> None:
        try:
            mode = raw_mode(termios.tcgetattr(self._descriptor))
            # At once: what waits to be sent need not leave first.
            termios.tcsetattr(self._descriptor, termios.TCSANOW, mode)
            # tcsetattr() succeeds if the terminal takes any of the settings.
            took_it = is_raw(termios.tcgetattr(self._descriptor))
        except termios.error as error:
            raise OSError(*error.args) from error
        if not took_it:
            raise OSError("the terminal does not take raw mode, without which it alters bytes")
