# SPDX-License-Identifier: Apache-2.0
"""Generators that are not there: each speaks its device's protocol behind a pseudo-terminal.

Whoever has no hardware can try the sources with them, from a shell::

    python -m qr_entropy_serial.simulators truerng --link /tmp/truerng

Their bytes come from the operating system. They were written from the documents and the firmware
that :mod:`qr_entropy_serial.devices` names; none was compared with a real device.
"""

from __future__ import annotations

from qr_entropy_serial.simulators.device import SimulatedDevice
from qr_entropy_serial.simulators.onerng import SimulatedOneRng
from qr_entropy_serial.simulators.plug import Plug
from qr_entropy_serial.simulators.truerng import SimulatedTrueRng

__all__ = ["Plug", "SimulatedDevice", "SimulatedOneRng", "SimulatedTrueRng"]
