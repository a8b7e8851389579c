# SPDX-License-Identifier: Apache-2.0
"""Runs a simulated device until it is told to end."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

from qr_entropy_serial.simulators.device import SimulatedDevice
from qr_entropy_serial.simulators.plug import Plug
from qr_sampler.stop_request import StopRequest

__all__ = ["HELP", "add_options", "run"]

HELP: Final = (
    "While it runs, it obeys lines on its standard input: unplug, replug, heal, the name of a "
    "fault, and generated, which prints how many bytes the device has made. SIGINT and SIGTERM end "
    "it, the end of the input does not."
)
"""What to tell users of a program."""


def add_options(parser: argparse.ArgumentParser, faults: Iterable[str], rate: float) -> None:
    """Adds what all simulators ask for: ``--link``, ``--rate`` and ``--fault``.

    Args:
        parser: Gets the options.
        faults: Names of the faults that can be chosen.
        rate: Bytes per second, unless another rate is chosen.
    """
    parser.add_argument("--link", type=Path, required=True, help="where the port appears")
    parser.add_argument("--rate", type=float, default=rate, help="bytes per second")
    parser.add_argument("--fault", choices=faults, default="", help="a fault to begin with")


def run(device: SimulatedDevice, link: Path) -> int:
    """Plugs *device* in under *link* and obeys until a signal ends it; returns the exit status."""
    ended = StopRequest()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with Plug(device, link) as plug:
        print(f"{link} is ready", flush=True)
        threading.Thread(target=_obey, args=(plug,), daemon=True).start()
        ended.wait()
    return 0


def _obey(plug: Plug) -> None:
    actions: Mapping[str, Callable[[], None]] = {
        "unplug": plug.unplug,
        "replug": plug.plug_in,
        "generated": lambda: print(plug.device.generated, flush=True),
        "heal": lambda: plug.device.break_down(""),
    }
    for line in sys.stdin:
        word = line.strip()
        if word in actions:
            actions[word]()
        elif word in plug.device.faults:
            plug.device.break_down(word)
        elif word:
            print(f"{word!r} is no command", file=sys.stderr, flush=True)
        if word != "generated":
            print(f"{word}: done", flush=True)
