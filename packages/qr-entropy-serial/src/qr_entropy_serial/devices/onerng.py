# SPDX-License-Identifier: Apache-2.0
"""The OneRNG of Moonbase Otago.

Commands are ``cmd`` and a character, as its firmware reads them (``cdc_app.c`` of
github.com/OneRNG/firmware): ``O`` sends, ``o`` pauses, ``w`` empties the pool of 7 KiB, and a digit
chooses the sources of noise: its bit 0 switches whitening by CRC-16 off, bit 1 the radio on and
bit 2 the avalanche diode off. Bytes leave in packets of 64.
"""

from __future__ import annotations

from typing import ClassVar, Final

from qr_entropy_serial.devices.device import SerialDevice
from qr_entropy_serial.discovery import UsbIdentity
from qr_entropy_serial.port import SerialPort

__all__ = ["GAP_S", "PACKET_BYTES", "OneRng"]

PACKET_BYTES: Final = 64
"""Number of bytes that the device sends at a time."""

_REST: Final = b"cmdo\ncmd4\ncmdw\n"
"""Sends nothing, gathers no noise, and has an empty pool."""
_EMPTY: Final = b"cmdw\n"
_SEND: Final = b"cmdO\n"
_NOISE: Final = {
    "avalanche": b"cmd0\n",
    "avalanche_raw": b"cmd1\n",
    "avalanche_rf": b"cmd2\n",
    "avalanche_rf_raw": b"cmd3\n",
    "rf": b"cmd6\n",
    "rf_raw": b"cmd7\n",
}

_QUIET_S: Final = 0.05
"""A USB device that has been told to pause has its last packet on the way for no longer."""
GAP_S: Final = 0.005
"""One that rests is known to do so after that time: it sends full packets every millisecond."""


class OneRng(SerialDevice):
    """A OneRNG. Between draws it gathers no noise, so that its pool holds nothing from before."""

    name = "onerng"
    identities = (UsbIdentity(0x1D50, 0x6086),)
    modes: ClassVar = {
        "avalanche": "crc16",
        "avalanche_raw": "none",
        "avalanche_rf": "crc16",
        "avalanche_rf_raw": "none",
        "rf": "crc16",
        "rf_raw": "none",
    }
    usual_flush_bytes = 2 * PACKET_BYTES
    """One packet that waits in the device to be fetched, and one behind it."""

    def open(self, path: str, deadline_ns: int) -> SerialPort:
        """Returns the port of a device that rests, whatever its last user has left it doing."""
        port = SerialPort(path, self.baud)
        try:
            port.write(_REST, deadline_ns)
            port.settle(_QUIET_S, deadline_ns)
        except BaseException:
            port.close()
            raise
        return port

    def begin(self, port: SerialPort, deadline_ns: int) -> None:
        """Empties the port and the pool, and then lets the device gather noise and send.

        It may have been told to rest just now, and would still send what is from before.
        """
        port.settle(GAP_S, deadline_ns)
        port.write(_EMPTY + _NOISE[self.mode], deadline_ns)
        port.drop_input()
        port.write(_SEND, deadline_ns)

    def end(self, port: SerialPort, deadline_ns: int) -> None:
        """Lets the device rest."""
        port.write(_REST, deadline_ns)
