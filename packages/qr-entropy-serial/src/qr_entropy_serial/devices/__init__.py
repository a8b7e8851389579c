# SPDX-License-Identifier: Apache-2.0
"""How each family of generators is opened, flushed, started and stopped."""

from __future__ import annotations

from qr_entropy_serial.devices.catalogue import DEVICES, device_named, known_at
from qr_entropy_serial.devices.device import SerialDevice

__all__ = ["DEVICES", "SerialDevice", "device_named", "known_at"]
