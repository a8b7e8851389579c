# SPDX-License-Identifier: Apache-2.0
"""The line between a simulated device and the host: a pseudo-terminal under a name that stays."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from qr_entropy_serial.port import require_serial_ports
from qr_entropy_serial.simulators.device import SimulatedDevice

if sys.platform != "win32":
    import termios

__all__ = ["Plug"]

_TICK_S: Final = 0.001
_INPUT, _OUTPUT, _LOCAL, _SPEED = 0, 1, 3, 4
"""Places in what :func:`termios.tcgetattr` returns."""


def _baud_of() -> dict[int, int]:
    """Returns the speeds that terminals have, by the constant that stands for them."""
    return {
        getattr(termios, name): int(name[1:])
        for name in dir(termios)
        if name[0] == "B" and name[1:].isdigit()
    }


class Plug:
    """Plugs a simulated device in, under *link*; a context manager that unplugs it at its end.

    Args:
        device: The device.
        link: Path of the symbolic link to the pseudo-terminal.

    Raises:
        ConfigError: When the system has no pseudo-terminals.
        OSError: When the link cannot be made, or when something else has its name.
    """

    def __init__(self, device: SimulatedDevice, link: Path) -> None:
        require_serial_ports()
        self.device = device
        """The device."""
        self.link = link
        """Where the host finds it."""
        self._master: int | None = None
        self._unplugged = threading.Event()
        self._thread: threading.Thread | None = None
        self.plug_in()

    def plug_in(self) -> None:
        """Plugs the device in, with a new pseudo-terminal behind the same link.

        Raises:
            OSError: When the link cannot be made, or when something else has its name.
        """
        self.unplug()
        if self.link.exists() and not self.link.is_symlink():
            raise FileExistsError(f"{self.link} is no link to a pseudo-terminal: name another path")
        master, slave = os.openpty()
        # The kernel opens a pseudo-terminal as a keyboard, which echoes.
        mode: list[Any] = termios.tcgetattr(slave)
        mode[_INPUT] = mode[_OUTPUT] = mode[_LOCAL] = 0
        termios.tcsetattr(slave, termios.TCSANOW, mode)
        os.set_blocking(master, False)
        self.device.power_up()
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(os.ttyname(slave))
        os.close(slave)
        self._master = master
        self._unplugged.clear()
        self._thread = threading.Thread(target=self._run, args=(master,), daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """Pulls the device out: whoever has the port open finds it hung up."""
        if self._master is None or self._thread is None:
            return
        self._unplugged.set()
        self._thread.join()
        self.link.unlink(missing_ok=True)
        os.close(self._master)
        self._master = self._thread = None

    def __enter__(self) -> Plug:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unplug()

    def _run(self, master: int) -> None:
        line = select.poll()
        line.register(master, select.POLLIN)
        speed, before_s = 0, time.monotonic()
        while not self._unplugged.wait(_TICK_S):
            now_s = time.monotonic()
            state = dict(line.poll(0)).get(master, 0)
            if state & select.POLLIN:
                self.device.commanded(_read(master))
            if (found := termios.tcgetattr(master)[_SPEED]) != speed:
                speed = found
                self.device.opened_at(_baud_of().get(speed, 0))
            self.device.pass_time(now_s - before_s)
            if not state & select.POLLHUP:
                self.device.sent(_write(master, self.device.outgoing()))
            before_s = now_s


def _read(master: int) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError:
        # The host has closed the port.
        return b""


def _write(master: int, data: bytes) -> int:
    try:
        return os.write(master, data) if data else 0
    except (BlockingIOError, OSError):
        return 0
