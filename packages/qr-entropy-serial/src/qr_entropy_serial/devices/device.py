# SPDX-License-Identifier: Apache-2.0
"""What all generators behind a serial port have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from qr_entropy_serial.discovery import UsbIdentity
from qr_entropy_serial.port import SerialPort
from qr_sampler.errors import ConfigError

__all__ = ["SerialDevice"]


class SerialDevice(ABC):
    """One family of generators, in one of its modes.

    Args:
        mode: Name of the mode; empty for the default one.
        baud: Speed of the port; ``None`` for the usual one.

    Raises:
        ConfigError: When it has no such mode.
    """

    name: ClassVar[str]
    """Name in ``QR_SERIAL_DEVICE``."""

    identities: ClassVar[tuple[UsbIdentity, ...]] = ()
    """What its devices say they are; empty if that tells nothing."""

    modes: ClassVar[Mapping[str, str]] = {}
    """What is done to the raw bits, by the name of the mode, the default one first; empty if it has
    no modes."""

    conditioning_without_modes: ClassVar[str] = "unknown"
    """What is done to the raw bits where there are no modes."""

    usual_baud: ClassVar[int] = 9600
    """Speed of the port, unless one is set. USB CDC devices ignore it."""

    usual_flush_bytes: ClassVar[int] = 512
    """Bytes that it and its converter may hold from before a request."""

    def __init__(self, mode: str = "", baud: int | None = None) -> None:
        if mode and mode not in self.modes:
            known = ", ".join(self.modes) or "none"
            raise ConfigError(
                f"QR_SERIAL_MODE={mode!r} is no mode of QR_SERIAL_DEVICE={self.name}, which has "
                f"{known}"
            )
        self.mode = mode or next(iter(self.modes), "")
        """Name of the mode, empty if it has none."""
        self.baud = self.usual_baud if baud is None else baud
        """Speed of the port."""

    @property
    def conditioning(self) -> str:
        """What is done to the raw bits in this mode."""
        return self.modes.get(self.mode, self.conditioning_without_modes)

    @abstractmethod
    def open(self, path: str, deadline_ns: int) -> SerialPort:
        """Returns the port at *path*, behind which the device is in its mode.

        Args:
            path: The port.
            deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up.

        Raises:
            TimeoutError: When the deadline passes first.
            OSError: When the port cannot be opened.
        """

    @abstractmethod
    def begin(self, port: SerialPort, deadline_ns: int) -> None:
        """Drops what waited and lets bytes come; what the device still holds comes first.

        Raises:
            TimeoutError: When the deadline passes first.
            OSError: When the port is gone.
        """

    @abstractmethod
    def end(self, port: SerialPort, deadline_ns: int) -> None:
        """Lets the device rest, if it can.

        Raises:
            TimeoutError: When the deadline passes first.
            OSError: When the port is gone.
        """
