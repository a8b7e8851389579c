# SPDX-License-Identifier: Apache-2.0
"""``python -m qr_entropy_cryptalabs.simulators --link PATH``: a QCicada without hardware."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from qr_entropy_cryptalabs.simulators.qcicada import SimulatedQCicada
from qr_entropy_serial.simulators.program import HELP, add_options, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the simulator; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m qr_entropy_cryptalabs.simulators",
        description="A QCicada without hardware, behind a pseudo-terminal.",
        epilog=HELP,
    )
    add_options(parser, SimulatedQCicada.faults, rate=80_000.0)
    parser.add_argument(
        "--ahead", type=int, default=0, help="bytes that it makes without being asked"
    )
    parser.add_argument(
        "--public-key", type=Path, help="file that gets its public key, in PEM form"
    )
    options = parser.parse_args(arguments)
    device = SimulatedQCicada(rate=options.rate, ahead_bytes=options.ahead)
    device.break_down(options.fault)
    if options.public_key is not None:
        key = device.identity.key.public_key()
        options.public_key.write_bytes(
            key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
    return run(device, options.link)


if __name__ == "__main__":
    sys.exit(main())
