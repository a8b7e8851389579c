# SPDX-License-Identifier: Apache-2.0
"""The families of generators by name and by USB identity."""

from __future__ import annotations

from typing import Final

from qr_entropy_serial.devices.device import SerialDevice
from qr_entropy_serial.devices.onerng import OneRng
from qr_entropy_serial.devices.stream import StreamDevice
from qr_entropy_serial.devices.truerng import TrueRng, TrueRngPro, TrueRngProV2
from qr_entropy_serial.discovery import UsbPort

__all__ = ["DEVICES", "device_named", "known_at"]

DEVICES: Final[tuple[type[SerialDevice], ...]] = (
    TrueRng,
    TrueRngPro,
    TrueRngProV2,
    OneRng,
    StreamDevice,
)
"""Every family."""


def device_named(name: str) -> type[SerialDevice]:
    """Returns the family of that name.

    Raises:
        KeyError: When there is none.
    """
    return {device.name: device for device in DEVICES}[name]


def known_at(port: UsbPort) -> type[SerialDevice] | None:
    """Returns the family that the device at *port* says it belongs to, if it is one of these."""
    for device in DEVICES:
        if any(identity.matches(port) for identity in device.identities):
            return device
    return None
