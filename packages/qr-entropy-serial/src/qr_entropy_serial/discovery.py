# SPDX-License-Identifier: Apache-2.0
"""Finding a serial port by the identity of the USB device behind it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from serial.tools import list_ports

from qr_sampler.foreign import plain_text

__all__ = ["PortNotFoundError", "UsbIdentity", "UsbPort", "find_port", "port_at", "usb_ports"]

_IDENTITY: Final = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})(?::([^:/\s]+))?", re.IGNORECASE)


class PortNotFoundError(OSError):
    """No port leads to the device that is looked for, or several do."""


@dataclass(frozen=True, slots=True)
class UsbIdentity:
    """What a USB device says it is."""

    vendor: int
    """Number of the vendor."""
    product: int
    """Number of the product."""
    serial_number: str | None = None
    """Serial number; ``None`` for any."""

    @classmethod
    def parsed(cls, text: str) -> UsbIdentity | None:
        """Returns the identity that *text* names, or ``None`` if it names a path.

        Examples:
            >>> UsbIdentity.parsed("04d8:f5fe:000042")
            UsbIdentity(vendor=1240, product=62974, serial_number='000042')
            >>> UsbIdentity.parsed("/dev/ttyACM0") is None
            True
        """
        match = _IDENTITY.fullmatch(text)
        if match is None:
            return None
        return cls(int(match[1], 16), int(match[2], 16), match[3])

    def matches(self, port: UsbPort) -> bool:
        """Returns whether *port* leads to such a device."""
        same = (self.vendor, self.product) == (port.vendor, port.product)
        return same and self.serial_number in (None, port.serial_number)

    def __str__(self) -> str:
        serial_number = f":{self.serial_number}" if self.serial_number else ""
        return plain_text(f"{self.vendor:04x}:{self.product:04x}{serial_number}")


@dataclass(frozen=True, slots=True)
class UsbPort:
    """A serial port of a USB device."""

    path: str
    """Where it is, for example ``/dev/ttyACM0``."""
    vendor: int
    """Number of the vendor."""
    product: int
    """Number of the product."""
    serial_number: str | None
    """Serial number, if the device has one."""


def usb_ports() -> list[UsbPort]:
    """Returns the serial ports of USB devices that are plugged in, without opening any.

    Raises:
        OSError: When they cannot be listed.
    """
    try:
        present = list_ports.comports()
    except (TypeError, ValueError) as error:
        # pyserial trips over a device that vanishes meanwhile, and over names that are no text.
        raise OSError(f"USB devices cannot be listed now: {plain_text(error)}") from error
    return [
        UsbPort(port.device, port.vid, port.pid, port.serial_number)
        for port in present
        if port.vid is not None and port.pid is not None
    ]


def port_at(path: str, ports: Callable[[], list[UsbPort]] = usb_ports) -> UsbPort | None:
    """Returns the USB device behind *path*, which may be a link; ``None`` if there is none."""
    real = os.path.realpath(path)
    return next((port for port in ports() if os.path.realpath(port.path) == real), None)


def find_port(
    wanted: Iterable[UsbIdentity], ports: Callable[[], list[UsbPort]] = usb_ports
) -> UsbPort:
    """Returns the port of the one device that has one of the identities.

    Args:
        wanted: The identities.
        ports: Says what is plugged in.

    Raises:
        PortNotFoundError: When there is none, or more than one.
    """
    identities, present = list(wanted), ports()
    found = [port for port in present if any(one.matches(port) for one in identities)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(map(str, identities))
    if not found:
        raise PortNotFoundError(f"no USB serial port of {names}; found {_listed(present)}")
    raise PortNotFoundError(
        f"several USB serial ports of {names}: {_listed(found)}; name one by its path or serial "
        "number"
    )


def _listed(ports: list[UsbPort]) -> str:
    identities = (UsbIdentity(port.vendor, port.product, port.serial_number) for port in ports)
    lines = (f"{port.path} ({one})" for port, one in zip(ports, identities, strict=True))
    return plain_text(", ".join(lines)) if ports else "none at all"
