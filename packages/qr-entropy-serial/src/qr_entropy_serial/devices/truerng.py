# SPDX-License-Identifier: Apache-2.0
"""The TrueRNG family of ubld.it.

All of them stream as a USB CDC device while DTR is raised. The Pro models have modes, which are
chosen by opening the port at 110, 300 and 110 baud, and then at the speed that stands for the mode;
identities, speeds and modes are those of the vendor's ``truerng_read_example.py`` and
``truerng_mode.py`` (github.com/euler357/TrueRNG). The modes that write text for people are left
out.
"""

from __future__ import annotations

import time
from typing import ClassVar, Final

from qr_entropy_serial.devices.stream import StreamDevice
from qr_entropy_serial.discovery import UsbIdentity
from qr_entropy_serial.port import SerialPort

__all__ = ["KNOCK", "MODE_BAUD", "TrueRng", "TrueRngPro", "TrueRngProV2"]

KNOCK: Final = (110, 300, 110)
"""Speeds that announce a change of mode."""

MODE_BAUD: Final = {
    "normal": 300,
    "rng1_white": 4_800,
    "rng2_white": 9_600,
    "raw_binary": 19_200,
    "unwhitened": 57_600,
}
"""The speed that stands for each mode, after the knock."""

_FLUSH_BYTES: Final = 512
"""There is no converter: the generator itself is the USB device, and sends packets of 64 bytes."""

_FIRST_PAUSE_S: Final = 0.5
_PAUSE_S: Final = 0.1
"""The vendor waits half a second after the first speed, and not at all after the others."""

_TWISTED: Final = "mersenne-twister"
"""The vendor mixes the output of a pseudo-random generator, MT19937, into the bytes."""


class TrueRng(StreamDevice):
    """TrueRNG v1, v2 and v3. They whiten their bytes and have no modes."""

    name = "truerng"
    usual_flush_bytes = _FLUSH_BYTES
    identities = (UsbIdentity(0x04D8, 0xF5FE),)
    conditioning_without_modes = "whitened"


class _WithModes(StreamDevice):
    """A TrueRNG whose modes are chosen by knocking."""

    usual_flush_bytes = _FLUSH_BYTES

    def open(self, path: str, deadline_ns: int) -> SerialPort:
        """Returns the port, after the device has been told its mode.

        Nobody can ask a device for its mode, so that it is told every time.
        """
        pause_s = _FIRST_PAUSE_S
        for baud in (*KNOCK, MODE_BAUD[self.mode]):
            if time.monotonic_ns() >= deadline_ns:
                raise TimeoutError(f"{path} could not be told its mode in time")
            SerialPort(path, baud).close()
            time.sleep(pause_s)
            pause_s = _PAUSE_S
        return super().open(path, deadline_ns)


class TrueRngPro(_WithModes):
    """TrueRNGpro."""

    name = "truerng_pro"
    identities = (UsbIdentity(0x16D0, 0x0AA0),)
    modes: ClassVar = {
        "normal": _TWISTED,
        "rng1_white": _TWISTED,
        "rng2_white": _TWISTED,
        "raw_binary": "none",
    }


class TrueRngProV2(_WithModes):
    """TrueRNGproV2: as TrueRNGpro, and one mode without whitening."""

    name = "truerng_pro_v2"
    identities = (UsbIdentity(0x04D8, 0xEBB5),)
    # Without whitening: the difference of its two generators, which is an operation on raw bits.
    modes: ClassVar = {**TrueRngPro.modes, "unwhitened": "difference"}
