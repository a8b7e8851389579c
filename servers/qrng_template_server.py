# SPDX-License-Identifier: Apache-2.0
"""A template: serve your own random number generator over gRPC.

    python servers/qrng_template_server.py --address 127.0.0.1:50051

`qr-sampler new server NAME` makes a package with the same class, and tests for it. Or copy this
file and replace what is marked `TODO: YOUR HARDWARE CODE HERE`. Until then a stand-in answers with
the operating system's random bytes, so that everything around them can be tried.

What the kit does with your device, without a line from you:

- all modes: single calls (GetEntropy), a stream that stays open, and a stream that is closed after
  one request (StreamEntropy); large answers in chunks for clients that accept them
- one thread at a time calls `measure`, so no byte can be served twice
- health (grpc.health.v1) follows the last measurement; reflection shows the contract to tools
- `--tls-certificate`, `--tls-private-key`, `--tls-client-ca`: encryption, clients with certificates
- `--api-key-file`: who may draw; `--requests-per-minute`, `--bytes-per-day`: how much
- `--signing-key`: two Ed25519 signatures on every answer, one of them for records without bytes;
  `--witness-log`: a chained record of what was answered; `--metrics-address`: Prometheus
- SIGTERM ends it: running requests finish, then the device is closed

The one rule that the kit cannot keep for you is just in time: `measure` returns bytes that came
into being after it was called. Discard what the device has buffered, prepare nothing ahead, and
keep nothing that is left over.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable

from qr_sampler_grpc.server.program import add_options, run


class Device:
    """Your hardware: opened once, read on request, closed at the end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._read: Callable[[int], bytes] | None = None

    def open(self) -> None:
        """Connect to the device; an `OSError` from here ends the program before it listens."""
        # TODO: YOUR HARDWARE CODE HERE: open the port, check the model and the firmware.
        self._read = os.urandom

    def close(self) -> None:
        """Release the device; called once, after the last request."""
        # TODO: YOUR HARDWARE CODE HERE: stop the device and close the port.
        self._read = None

    def serial_number(self) -> str:
        """Return what clients see as `device_id`, unless `--device-id` says otherwise."""
        # TODO: YOUR HARDWARE CODE HERE: ask the device.
        return "template-0001"

    def measure(self, count: int) -> bytes:
        """Return exactly `count` bytes that are measured now.

        Raise an `OSError` when the device cannot deliver: the client learns that it is UNAVAILABLE
        and why, and health turns to NOT_SERVING until a measurement works again. Any other error is
        a defect: it is logged with its traceback and reported as INTERNAL. Too few or too many
        bytes are never sent on.
        """
        if self._read is None:
            raise OSError(f"the device {self.path} is not open")
        # TODO: YOUR HARDWARE CODE HERE: drop what waits from before this call (a serial port in raw
        # mode: `termios.tcflush(port, termios.TCIFLUSH)`; a pipe or a socket: read until it would
        # block), read `count` bytes with a time limit, run the health tests of the device on them,
        # and raise OSError if any of that fails.
        return self._read(count)


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve a random number generator over gRPC.")
    # TODO: YOUR HARDWARE CODE HERE: the options of your device.
    parser.add_argument("--device", default="stand-in", help="path of the device (%(default)s)")
    add_options(parser)
    options = parser.parse_args()
    device = Device(options.device)
    try:
        device.open()
    except OSError as error:
        parser.exit(2, f"error: cannot open {device.path}: {error}\n")
    with contextlib.closing(device):
        options.device_id = options.device_id or device.serial_number()
        return run(device.measure, options)


if __name__ == "__main__":
    sys.exit(main())
