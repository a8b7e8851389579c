# SPDX-License-Identifier: Apache-2.0
"""Draws over gRPC again and again, each on a new connection, and counts what is left behind.

    python leaks_grpc.py --resets 10000

Every mode of both interfaces has its turn. Half of the draws end well and half with an answer that
is too short; after each the connection is closed. Fails when descriptors, threads or memory grow.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc

from qr_sampler import EntropyUnavailableError
from qr_sampler_grpc.breaker_settings import BreakerOptions
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import (
    EntropyServiceServicer,
    add_EntropyServiceServicer_to_server,
)
from qr_sampler_grpc.source import QuantumGrpcSource

MODES: Final = ("unary", "server_streaming", "bidi_streaming")
SLACK: Final = 8
"""Descriptors and threads that gRPC may not have given back at the moment of counting."""


class EverySecondShort(EntropyServiceServicer):
    """Answers every second request with a byte too few."""

    def GetEntropy(self, request: EntropyRequest, context: grpc.ServicerContext) -> EntropyResponse:  # noqa: N802
        """Answer one request."""
        size = request.bytes_needed - request.sequence_id % 2
        return EntropyResponse(data=os.urandom(size), sequence_id=request.sequence_id)

    def StreamEntropy(  # noqa: N802
        self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
    ) -> Iterator[EntropyResponse]:
        """Answer each request of a stream."""
        for request in request_iterator:
            yield self.GetEntropy(request, context)


def serve() -> None:
    """Serve until standard input ends; says the port."""
    server = grpc.server(ThreadPoolExecutor(32))
    add_EntropyServiceServicer_to_server(EverySecondShort(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()


def held() -> tuple[int, int]:
    """Return the descriptors and threads of this process."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))


def settled(limits: tuple[int, int]) -> tuple[int, int]:
    """Return what is held once it is within `limits`, or after half a minute."""
    deadline = time.monotonic() + 30
    while any(a > b for a, b in zip(held(), limits, strict=True)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return held()


def reset_often(source: QuantumGrpcSource, times: int) -> int:
    """Draw and close so often, and return how many draws failed."""
    failed = 0
    for done in range(times):
        try:
            source.draw(16)
        except EntropyUnavailableError as error:
            failed += "asked for 16 bytes, received 15" in error.reason
        source.close()
        if done % 1000 == 999:
            print(f"  {done + 1}: {held()}", flush=True)
    return failed


def main() -> int:
    """Run every way and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resets", type=int, default=10_000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    command = [sys.executable, __file__, "--serve"]
    pipe = subprocess.PIPE
    wrong = 0
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as far_side:
        port = far_side.stdout.readline().strip() if far_side.stdout else ""
        for mode, stubs in ((mode, stubs) for stubs in ("sync", "aio") for mode in MODES):
            source = QuantumGrpcSource(
                f"127.0.0.1:{port}",
                mode=mode,
                stubs=stubs,
                breaker=BreakerOptions.checked(enabled=False),
            )
            reset_often(source, 50)
            before = held()
            failed = reset_often(source, arguments.resets)
            after = settled((before[0] + SLACK, before[1] + SLACK))
            fine = (
                all(b <= a + SLACK for a, b in zip(before, after, strict=True))
                and failed == arguments.resets // 2
            )
            wrong += not fine
            print(
                f"{'fine ' if fine else 'WRONG'} {mode} {stubs}: {arguments.resets} resets, "
                f"{failed} refused; descriptors {before[0]} -> {after[0]}, "
                f"threads {before[1]} -> {after[1]}",
                flush=True,
            )
        far_side.communicate()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
