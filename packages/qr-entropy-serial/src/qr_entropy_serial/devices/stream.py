# SPDX-License-Identifier: Apache-2.0
"""Generators that send bytes for as long as somebody listens, and take no commands."""

from __future__ import annotations

from qr_entropy_serial.devices.device import SerialDevice
from qr_entropy_serial.port import SerialPort

__all__ = ["StreamDevice"]


class StreamDevice(SerialDevice):
    """Any generator that streams."""

    name = "stream"

    usual_flush_bytes = 4_096
    """The receive buffer of a converter in front of the terminal: FT232R 256 bytes, FT-X 512,
    CP2102 576, FT232H 1,024, FT2232H 4,096, by their data sheets."""

    def open(self, path: str, deadline_ns: int) -> SerialPort:
        """Returns the port; opening it raises the line DTR, at which most generators begin."""
        return SerialPort(path, self.baud)

    def begin(self, port: SerialPort, deadline_ns: int) -> None:
        """Drops what waited: the device has never stopped."""
        port.drop_input()

    def end(self, port: SerialPort, deadline_ns: int) -> None:
        """Does nothing: it cannot be stopped."""
