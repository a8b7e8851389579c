# SPDX-License-Identifier: Apache-2.0
"""``python -m qr_entropy_serial.simulators DEVICE --link PATH``: a generator without hardware."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from qr_entropy_serial.simulators.device import SimulatedDevice
from qr_entropy_serial.simulators.onerng import SimulatedOneRng
from qr_entropy_serial.simulators.program import HELP, add_options, run
from qr_entropy_serial.simulators.truerng import SimulatedTrueRng

_DEVICES: Final[Mapping[str, Callable[[float], SimulatedDevice]]] = {
    "truerng": lambda rate: SimulatedTrueRng(rate=rate),
    "truerng_pro": lambda rate: SimulatedTrueRng(pro=True, rate=rate),
    "truerng_pro_v2": lambda rate: SimulatedTrueRng(pro=True, rate=rate),
    "onerng": lambda rate: SimulatedOneRng(rate=rate),
    "stream": lambda rate: SimulatedTrueRng(rate=rate),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the simulator that *arguments* ask for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m qr_entropy_serial.simulators",
        description="A generator without hardware, behind a pseudo-terminal.",
        epilog=HELP,
    )
    parser.add_argument("device", choices=_DEVICES, help="what is simulated")
    add_options(parser, SimulatedDevice.faults, rate=50_000.0)
    options = parser.parse_args(arguments)
    device = _DEVICES[options.device](options.rate)
    device.break_down(options.fault)
    return run(device, options.link)


if __name__ == "__main__":
    sys.exit(main())
