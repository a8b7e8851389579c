# SPDX-License-Identifier: Apache-2.0
"""Serves the timing noise of this machine's processor over gRPC.

    python servers/timing_noise_server.py --address 127.0.0.1:50051

An experiment that needs no hardware: every answer is hashed from time differences that are measured
after its request has arrived, and a clock that is too regular is refused rather than served. Nobody
claims that the noise is quantum. A byte takes microseconds of the processor, so 10,240 of them take
tens of milliseconds, and 400 bytes of memory while it is measured, hence the limit on requests. It
needs the packages `qr-sampler-grpc` and `qr-entropy-sources`; `--help` shows what the server kit
adds.
"""

from __future__ import annotations

import argparse
import sys

from qr_entropy_sources.timing_noise import TimingNoiseSource
from qr_sampler_grpc.server.program import add_options, run

MAX_BYTES = 2**16


def bits(text: str) -> float:
    """Return the number that `text` holds, if a time difference may be assumed to hold it."""
    value = float(text)
    if not 0.1 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} must lie in the interval [0.1, 1]")
    return value


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(
        description="Serve the timing noise of the processor over gRPC.",
        epilog="Experimental: no claim is made about the entropy of the noise.",
    )
    parser.add_argument(
        "--bits-per-delta",
        type=bits,
        default=1.0,
        help="min-entropy assumed in one time difference; less measures more (%(default)s)",
    )
    add_options(parser)
    parser.set_defaults(max_bytes_per_request=MAX_BYTES)
    options = parser.parse_args()
    return run(TimingNoiseSource(bits_per_delta=options.bits_per_delta), options)


if __name__ == "__main__":
    sys.exit(main())
