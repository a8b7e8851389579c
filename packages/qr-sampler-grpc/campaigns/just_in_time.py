# SPDX-License-Identifier: Apache-2.0
"""Draws over and over from several threads, and compares when requests arrived with when they left.

    python just_in_time.py --draws 10000

The server notes the moment at which each request arrives, on the clock of the machine, and puts its
number into the bytes. Every request must arrive after the draw that it serves began, which in an
engine is after the logits, and before that draw ended; and no answer may serve two draws. Fails
otherwise.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from qr_sampler import EntropyDraw
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import (
    EntropyServiceServicer,
    add_EntropyServiceServicer_to_server,
)
from qr_sampler_grpc.source import QuantumGrpcSource

MODES: Final = ("unary", "server_streaming", "bidi_streaming")
THREADS: Final = 8
NUMBER: Final = struct.Struct("<q")


class Logbook(EntropyServiceServicer):
    """Notes when each request arrives."""

    def __init__(self) -> None:
        """Begin with no request."""
        self.arrived_ns: dict[int, int] = {}

    def GetEntropy(self, request: EntropyRequest, context: grpc.ServicerContext) -> EntropyResponse:  # noqa: N802
        """Answer one request."""
        self.arrived_ns[request.sequence_id] = time.monotonic_ns()
        data = NUMBER.pack(request.sequence_id) + os.urandom(request.bytes_needed - NUMBER.size)
        return EntropyResponse(data=data, sequence_id=request.sequence_id)

    def StreamEntropy(  # noqa: N802
        self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
    ) -> Iterator[EntropyResponse]:
        """Answer each request of a stream."""
        for request in request_iterator:
            yield self.GetEntropy(request, context)


def drawn(address: str, mode: str, stubs: str, count: int) -> list[EntropyDraw]:
    """Return `count` draws, made by several threads at once."""
    source = QuantumGrpcSource(
        address,
        mode=mode,
        stubs=stubs,
        timeout_ms=60_000,
        breaker=BreakerOptions.checked(enabled=False),
    )
    shares = [count // THREADS + (index < count % THREADS) for index in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        batches = pool.map(lambda share: [source.draw(32) for _ in range(share)], shares)
        draws = [draw for batch in batches for draw in batch]
    source.close()
    return draws


def wrong_ones(draws: list[EntropyDraw], arrived_ns: dict[int, int]) -> int:
    """Return how many draws were served by a request of another time, or by another's answer."""
    early_or_late = 0
    numbers = set()
    for draw in draws:
        (number,) = NUMBER.unpack_from(draw.data)
        numbers.add(number)
        early_or_late += not draw.requested_ns <= arrived_ns[number] <= draw.received_ns
    return early_or_late + len(draws) - len(numbers) + abs(len(arrived_ns) - len(draws))


def main() -> int:
    """Run every mode of both interfaces and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10_000, help="of each mode (%(default)s)")
    count = parser.parse_args().draws
    wrong = 0
    for stubs in ("sync", "aio"):
        for mode in MODES:
            logbook = Logbook()
            server = grpc.server(ThreadPoolExecutor(2 * THREADS))
            add_EntropyServiceServicer_to_server(logbook, server)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            draws = drawn(f"127.0.0.1:{port}", mode, stubs, count)
            server.stop(0).wait()
            found = wrong_ones(draws, logbook.arrived_ns)
            wrong += found
            print(f"{mode} {stubs}: {len(draws)} draws, {found} wrong", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
