# SPDX-License-Identifier: Apache-2.0
"""Draws from a healthy server on a busy machine, and counts what was given up.

    python healthy_draws.py --draws 20000 --busy 4

The server measures at once and never fails, so every draw that is given up is the doing of the
machine. With another source to take over, such a draw is a token of that source; without one it
ends requests, which is why the shortest deadline is then another.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from qr_sampler import EntropySource, EntropyUnavailableError
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.direct.server import serve_direct
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.source import QuantumGrpcSource

BLOCK_BYTES = 10_240
STEP_S = 0.002
"""What an engine does between two draws."""


class Tally(NamedTuple):
    """What became of the draws from one source."""

    draws: int
    given_up: int
    slowest_ms: float


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile."""
    workers = [multiprocessing.Process(target=spin, daemon=True) for _ in range(processes)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def serve_until_told(folder: str, ready: multiprocessing.synchronize.Event) -> None:
    """Serve the operating system's random bytes at two sockets, in its own process."""
    device = Device(os.urandom)
    with serve(device, f"unix://{folder}/grpc"), serve_direct(device, f"unix://{folder}/direct"):
        ready.set()
        time.sleep(86_400.0)


def tally(source: EntropySource, draws: int) -> Tally:
    """Draw, one after the other, as an engine does."""
    given_up, slowest_ms = 0, 0.0
    for count in range(draws):
        began_s = time.monotonic()
        try:
            source.draw(BLOCK_BYTES)
        except EntropyUnavailableError as error:
            if "not tried again" not in error.reason:
                given_up += 1
        slowest_ms = max(slowest_ms, 1000 * (time.monotonic() - began_s))
        if sys.stderr.isatty() and count % 100 == 0:
            print(f"\r{count} of {draws}", end="", file=sys.stderr)
        time.sleep(STEP_S)
    return Tally(draws, given_up, slowest_ms)


def main() -> int:
    """Compare both transports with and without a fallback."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--busy", type=int, default=2 * (os.cpu_count() or 1))
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, busy(options.busy):
        ready = context.Event()
        server = context.Process(target=serve_until_told, args=(folder, ready), daemon=True)
        server.start()
        ready.wait(60.0)
        for name, kind in (("grpc", QuantumGrpcSource), ("direct", DirectSource)):
            for has_fallback in (True, False):
                source = kind(f"unix://{Path(folder, name)}")
                source.has_fallback = has_fallback
                found = tally(source, options.draws)
                source.close()
                print(
                    f"{name:7} {'with' if has_fallback else 'without':7} a fallback: "
                    f"{found.given_up} of {found.draws} draws given up "
                    f"({100 * found.given_up / found.draws:.3f} %), "
                    f"the slowest took {found.slowest_ms:.0f} ms",
                    flush=True,
                )
        server.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
