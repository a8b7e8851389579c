# SPDX-License-Identifier: Apache-2.0
"""A connection that the far side ends with an HTTP/2 GOAWAY leaves the process alive.

The server is a bare socket, so the frame is what it is whatever gRPC's own servers would send. A
release of grpcio that passes here may be allowed in ``pyproject.toml``.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

# RFC 9113, sections 4.1, 6 and 7.
PREFACE_BYTES = 24
HEADERS, SETTINGS, GOAWAY = 0x1, 0x4, 0x7
ACK = 0x1
NO_ERROR, HTTP_1_1_REQUIRED, UNASSIGNED = 0x0, 0xD, 0xE

WORDS = b"the key s3cret-of-ours was sent here"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class GoawayServer:
    """Ends every connection with a GOAWAY frame as soon as a call arrives on it."""

    def __init__(self) -> None:
        self.error_code = NO_ERROR
        self.sent: list[int] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming, suppress(OSError):
            incoming.read(PREFACE_BYTES)
            connection.sendall(frame(SETTINGS, 0, 0))
            while len(header := incoming.read(9)) == 9:
                kind, flags = header[3], header[4]
                incoming.read(int.from_bytes(header[:3], "big"))
                if kind == SETTINGS and not flags & ACK:
                    connection.sendall(frame(SETTINGS, ACK, 0))
                if kind == HEADERS:
                    # Stream 0 is the last one that was served: this call was not.
                    connection.sendall(
                        frame(GOAWAY, 0, 0, struct.pack(">II", 0, self.error_code) + WORDS)
                    )
                    self.sent.append(self.error_code)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def goaway_server() -> Iterator[GoawayServer]:
    server = GoawayServer()
    yield server
    server.close()


DRAWS_IN_EVERY_MODE = """
    import os, sys

    # What gRPC itself writes is looked at, too.
    os.dup2(1, 2)

    from qr_sampler import EntropyUnavailableError
    from qr_sampler.entropy.breaker_settings import BreakerOptions
    from qr_sampler_grpc.source import QuantumGrpcSource

    for stubs in ("sync", "aio"):
        for mode in ("unary", "server_streaming", "bidi_streaming"):
            source = QuantumGrpcSource(
                sys.argv[1],
                mode=mode,
                stubs=stubs,
                timeout_ms=1000.0,
                api_key="s3cret-of-ours",
                breaker=BreakerOptions.checked(enabled=False),
            )
            try:
                source.draw(16)
            except EntropyUnavailableError as error:
                print(stubs, mode, "s3cret" in error.reason, flush=True)
            source.close()
"""


@pytest.mark.parametrize("error_code", [NO_ERROR, HTTP_1_1_REQUIRED, UNASSIGNED])
def test_a_goaway_during_a_call_is_a_failed_draw_in_every_mode(
    goaway_server: GoawayServer, run_python: Callable[..., str], error_code: int
) -> None:
    goaway_server.error_code = error_code
    # A separate process: what is guarded against cannot be caught.
    survived = run_python(DRAWS_IN_EVERY_MODE, goaway_server.address).splitlines()
    assert survived == [
        f"{stubs} {mode} False"
        for stubs in ("sync", "aio")
        for mode in ("unary", "server_streaming", "bidi_streaming")
    ]
    assert len(goaway_server.sent) >= len(survived), "not every call got the frame"
