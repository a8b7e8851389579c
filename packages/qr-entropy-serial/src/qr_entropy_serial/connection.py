# SPDX-License-Identifier: Apache-2.0
"""An open generator: the port, what is behind it, and how a block is read from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qr_entropy_serial.devices import DEVICES, SerialDevice, device_named, known_at
from qr_entropy_serial.discovery import UsbIdentity, UsbPort, find_port, port_at, usb_ports
from qr_entropy_serial.port import SerialPort

__all__ = ["Connection", "Location", "Place", "UnknownDeviceError"]

_LEAST_TO_JUDGE: Final = 64
"""Bytes that have to be below 128, all of them, to be taken for text: random ones are so with
probability 2**-64."""


class UnknownDeviceError(OSError):
    """Nobody has said what is behind a port, and its USB identity does not tell."""


@dataclass(frozen=True, slots=True)
class Place:
    """A port, and what is behind it."""

    path: str
    """The port."""
    device: SerialDevice
    """What is behind it, in its mode."""
    identity: str
    """USB identity, or the path of what has none."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a generator is looked for, each time it is opened: a path may change when it is back.

    Raises:
        ConfigError: When the device has no such mode.
    """

    port: str
    """Path, or USB identity; empty for the one known device that is plugged in."""
    device: str
    """Name of the family, or ``"auto"``."""
    mode: str = ""
    """Name of the mode; empty for the first one."""
    baud: int | None = None
    """Speed of the port; ``None`` for the usual one."""
    ports: Callable[[], list[UsbPort]] = usb_ports
    """Says which USB devices are plugged in."""

    def __post_init__(self) -> None:
        if self.device != "auto":
            device_named(self.device)(self.mode, self.baud)

    def find(self) -> Place:
        """Returns where the device is, without opening it.

        Raises:
            ConfigError: When the device that was found has no such mode.
            PortNotFoundError: When it is not plugged in, or several are.
            UnknownDeviceError: When it does not say what it is, and the settings neither.
        """
        path, usb = self._port()
        if self.device != "auto":
            family = device_named(self.device)
        elif usb is None or (known := known_at(usb)) is None:
            raise UnknownDeviceError(
                f"what is behind {path} is unknown; set QR_SERIAL_DEVICE, for example to stream"
            )
        else:
            family = known
        identity = path if usb is None else str(_identity(usb))
        return Place(path, family(self.mode, self.baud), identity)

    def known_device(self) -> SerialDevice | None:
        """Returns what the device is said to be, without a look at what is plugged in."""
        return None if self.device == "auto" else device_named(self.device)(self.mode, self.baud)

    def _port(self) -> tuple[str, UsbPort | None]:
        wanted = UsbIdentity.parsed(self.port)
        if self.port and wanted is None:
            return self.port, port_at(self.port, self.ports)
        identities = [wanted] if wanted else self._identities()
        if not identities:
            raise UnknownDeviceError("set QR_SERIAL_PORT: QR_SERIAL_DEVICE=stream has no identity")
        found = find_port(identities, self.ports)
        return found.path, found

    def _identities(self) -> list[UsbIdentity]:
        families = DEVICES if self.device == "auto" else (device_named(self.device),)
        return [identity for family in families for identity in family.identities]


class Connection:
    """An open generator. Not for several threads at once.

    Args:
        place: Where it is.
        flush_bytes: Bytes to read and discard before each block; ``None`` for as many as it may
            hold.
        deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up opening it.

    Raises:
        TimeoutError: When the deadline passes first.
        OSError: When it cannot be opened.
    """

    def __init__(self, place: Place, flush_bytes: int | None, deadline_ns: int) -> None:
        self.place = place
        """Where it is."""
        usual = place.device.usual_flush_bytes
        self._flush_bytes = usual if flush_bytes is None else flush_bytes
        self._port: SerialPort = place.device.open(place.path, deadline_ns)

    def read_into(self, received: bytearray, n: int, deadline_ns: int) -> None:
        """Appends *n* bytes that came after what was held from before has been dropped.

        Args:
            received: Where the bytes go; has those that came also after an error.
            n: How many.
            deadline_ns: Reading of :func:`time.monotonic_ns` at which to give up.

        Raises:
            TimeoutError: When the deadline passes first.
            OSError: When the device is gone, or sends text.
        """
        device = self.place.device
        device.begin(self._port, deadline_ns)
        held = self._port.read(self._flush_bytes, deadline_ns)
        self._port.read_into(received, n, deadline_ns)
        device.end(self._port, deadline_ns)
        if _is_text(held + received):
            raise OSError("it sends text instead of random bytes; set its mode by QR_SERIAL_MODE")

    def close(self) -> None:
        """Gives the port back."""
        self._port.close()


def _is_text(data: bytes) -> bool:
    return len(data) >= _LEAST_TO_JUDGE and data.isascii()


def _identity(port: UsbPort) -> UsbIdentity:
    return UsbIdentity(port.vendor, port.product, port.serial_number)
