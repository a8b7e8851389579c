# SPDX-License-Identifier: Apache-2.0
"""Draws over gRPC that fail in every way, again and again, and counts what is left behind.

    python leaks_grpc.py --cycles 2000

Every mode of both interfaces has its turn. In each cycle a draw fails in the next way and one that
succeeds follows, which must get its own bytes; every tenth cycle closes the connection. Fails when
descriptors, threads or memory grow, or when a draw ends in another way than it should.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import grpc
from holdings import Held, settled

from qr_sampler import EntropyUnavailableError
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.scripted import WAYS

SIZE: Final = 64
"""Bytes of a draw that succeeds. One that is to fail asks for more, which tells the server how."""
TIMEOUT_MS: Final = 25.0
"""Of draws that time out; the others have a minute."""
PADDING: Final = bytes(4 * 2**20)
MEMORY_SLACK_MIB: Final = 12.0
"""What an allocator may hold more of at the end than after the cycles that warm up."""

HELD_SLACK: Final = 8
"""Descriptors and threads that gRPC may not have given back at the moment of counting."""
ARENAS: Final = "MALLOC_ARENA_MAX"

Fault = Callable[[EntropyRequest, grpc.ServicerContext], bytes]


def answer(asked: EntropyRequest, **changes: Any) -> bytes:
    """Return a right answer, except for *changes*."""
    facts = {"data": os.urandom(asked.bytes_needed), "sequence_id": asked.sequence_id}
    return EntropyResponse(**{**facts, **changes}).SerializeToString()


def short(asked: EntropyRequest, context: grpc.ServicerContext) -> bytes:
    """Send a byte too few."""
    return answer(asked, data=bytes(asked.bytes_needed - 1))


def long(asked: EntropyRequest, context: grpc.ServicerContext) -> bytes:
    """Send a byte too many."""
    return answer(asked, data=bytes(asked.bytes_needed + 1))


def misnamed(asked: EntropyRequest, context: grpc.ServicerContext) -> bytes:
    """Answer another request."""
    return answer(asked, sequence_id=asked.sequence_id ^ 1)


def noise(asked: EntropyRequest, context: grpc.ServicerContext) -> bytes:
    """Send what is no message."""
    return b"\xff" * 99


def refusal(asked: EntropyRequest, context: grpc.ServicerContext) -> bytes:
    """End the call with a status."""
    context.abort(grpc.StatusCode.UNAVAILABLE, "cold")
    return b""


def oversized(asked: EntropyRequest, context: grpc.ServicerContext) -> bytes:
    """Send a right answer with mebibytes that mean nothing."""
    return answer(asked) + EntropyResponse(signature=PADDING).SerializeToString()


def bomb(asked: EntropyRequest, context: grpc.ServicerContext) -> bytes:
    """Send the same, compressed to a few kibibytes."""
    context.set_compression(grpc.Compression.Gzip)
    return oversized(asked, context)


def silence(asked: EntropyRequest, context: grpc.ServicerContext) -> bytes:
    """Send nothing until the caller has gone."""
    given_up = time.monotonic() + 60
    while context.is_active() and time.monotonic() < given_up:
        time.sleep(0.002)
    return b""


FAULTS: Final[tuple[Fault, ...]] = (
    short, long, misnamed, noise, refusal, oversized, bomb, silence
)  # fmt: skip
REFUSED: Final = "refused"
"""One fault more: nobody listens."""


def respond(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Answer in the way that the size of the request stands for."""
    asked = EntropyRequest.FromString(request)
    which = asked.bytes_needed - SIZE - 1
    return FAULTS[which](asked, context) if which >= 0 else answer(asked)


def respond_to_each(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Answer each request of a stream."""
    for request in requests:
        yield respond(request, context)


def serve() -> None:
    """Serve until standard input ends; says the port."""
    handlers = {
        "GetEntropy": grpc.unary_unary_rpc_method_handler(respond),
        "StreamEntropy": grpc.stream_stream_rpc_method_handler(respond_to_each),
    }
    service = grpc.method_handlers_generic_handler("qr_entropy.EntropyService", handlers)
    server = grpc.server(ThreadPoolExecutor(32), handlers=[service])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()


@contextmanager
def far_side() -> Iterator[str]:
    """Yields the address of a server in its own process."""
    command = [sys.executable, __file__, "--serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        port = server.stdout.readline().strip() if server.stdout else ""
        yield f"127.0.0.1:{port}"
        server.communicate()


class Cycles:
    """Draws that fail and draws that succeed, in turn, in one mode of one interface."""

    def __init__(self, address: str, mode: str, stubs: str) -> None:
        self.outcomes: Counter[str] = Counter()
        options: dict[str, Any] = {
            "mode": mode,
            "stubs": stubs,
            "breaker": BreakerOptions.checked(enabled=False),
        }
        self._source = QuantumGrpcSource(address, timeout_ms=60_000, **options)
        self._impatient = QuantumGrpcSource(address, timeout_ms=TIMEOUT_MS, **options)
        # Nothing can listen there without the rights of an administrator.
        self._nobody = QuantumGrpcSource("127.0.0.1:1", timeout_ms=60_000, **options)

    def run(self, times: int) -> None:
        """Run so many cycles."""
        for done in range(times):
            self._fail(done % (len(FAULTS) + 1))
            if len(self._source.draw(SIZE).data) == SIZE:
                self.outcomes["fine"] += 1
            if done % 10 == 9:
                self.close()

    def _fail(self, which: int) -> None:
        fault = FAULTS[which] if which < len(FAULTS) else None
        name = fault.__name__ if fault else REFUSED
        source = {silence: self._impatient, None: self._nobody}.get(fault, self._source)
        try:
            source.draw(SIZE + 1 + which)
        except EntropyUnavailableError:
            self.outcomes[name] += 1
        else:
            self.outcomes[f"accepted {name}"] += 1

    def close(self) -> None:
        """Close all connections; the next cycle opens others."""
        for source in (self._source, self._impatient, self._nobody):
            source.close()


def examine(address: str, mode: str, stubs: str, cycles: int) -> tuple[bool, str]:
    """Return whether nothing was left behind in *cycles* cycles, and a line about it."""
    warming = Cycles(address, mode, stubs)
    warming.run(max(cycles // 10, 2 * (len(FAULTS) + 1)))
    warming.close()
    before = Held.now()
    examined = Cycles(address, mode, stubs)
    examined.run(cycles)
    examined.close()
    after = settled(before, MEMORY_SLACK_MIB, HELD_SLACK)
    accepted = {name: n for name, n in examined.outcomes.items() if name.startswith("accepted")}
    fine = (
        after.is_within(before, MEMORY_SLACK_MIB, HELD_SLACK)
        and not accepted
        and examined.outcomes["fine"] == cycles
    )
    return fine, (
        f"{'fine ' if fine else 'WRONG'} {mode} {stubs}: {cycles} cycles; "
        f"{after.since(before)}; {dict(examined.outcomes)}"
    )


def main() -> int:
    """Run every way and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=2000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    if ARENAS not in os.environ:
        # Freed pieces between others that are in use cannot be given back, and each thread has its
        # own share of glibc's heap to leave them in: that looks like a leak until it has converged.
        command = [sys.executable, *sys.argv]
        os.execve(sys.executable, command, {**os.environ, ARENAS: "1"})
    wrong = 0
    with far_side() as address:
        for mode, stubs in WAYS:
            fine, line = examine(address, mode, stubs, arguments.cycles)
            wrong += not fine
            print(line, flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
