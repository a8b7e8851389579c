# SPDX-License-Identifier: Apache-2.0
"""The smallest entropy server: random bytes from the operating system, over gRPC.

    python servers/simple_urandom_server.py --address 127.0.0.1:50051

A server for a real device is this file with another `measure`. It needs the packages `grpcio` and
`qr-sampler-grpc`, and of the latter only the stubs generated from `entropy_service.proto`.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import (
    EntropyServiceServicer,
    add_EntropyServiceServicer_to_server,
)

MAX_BYTES = 16 * 2**20  # Refuses what would fill the memory rather than trying.
MAX_COMMITMENT = 64  # Bytes; it is repeated in every answer.
MAX_CALLS = 64  # Every call holds a thread while it runs, an open stream even while it is silent.


def measure(count: int) -> bytes:
    """Return `count` fresh bytes; ask your device here, and drop whatever it had buffered."""
    return os.urandom(count)


class UrandomServicer(EntropyServiceServicer):
    """Answers the two calls of the wire contract, which has named them."""

    def GetEntropy(self, request: EntropyRequest, context: grpc.ServicerContext) -> EntropyResponse:
        """Answer one request."""
        if not 1 <= request.bytes_needed <= MAX_BYTES:
            problem = f"bytes_needed={request.bytes_needed}; ask for 1 to {MAX_BYTES}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        if len(request.commitment) > MAX_COMMITMENT:
            problem = f"a commitment of {len(request.commitment)} bytes; at most {MAX_COMMITMENT}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        return EntropyResponse(
            data=measure(request.bytes_needed),  # Just in time: the request is already here.
            sequence_id=request.sequence_id,  # Tells the client which request this answers.
            generation_timestamp_ns=time.time_ns(),
            device_id="urandom",
            commitment=request.commitment,  # Shows that we had it when we measured.
        )

    def StreamEntropy(
        self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
    ) -> Iterator[EntropyResponse]:
        """Answer each request of a stream before looking at the next."""
        for request in request_iterator:
            yield self.GetEntropy(request, context)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve os.urandom over gRPC.")
    parser.add_argument("--address", default="127.0.0.1:50051", help="host:port or unix:///path")
    address = parser.parse_args().address
    # Without so_reuseport=0 a second server on the same port would take half of the requests.
    server = grpc.server(ThreadPoolExecutor(MAX_CALLS), options=[("grpc.so_reuseport", 0)])
    add_EntropyServiceServicer_to_server(UrandomServicer(), server)
    port = server.add_insecure_port(address)
    server.start()
    for stop in (signal.SIGINT, signal.SIGTERM):  # A shell may have started us deaf to the first.
        signal.signal(stop, signal.default_int_handler)
    # Port 0 asks for any free port, so scripts wait for this line and read the address from it.
    bound = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
    try:
        print(f"entropy server listening on {bound}", flush=True)
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(grace=1).wait()


if __name__ == "__main__":
    main()
