# SPDX-License-Identifier: Apache-2.0
"""The servers, in their own process: gRPC, direct and bare sockets with the same bytes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import Final

from qr_sampler_grpc.testing.certificates import issue

__all__ = ["PAYLOAD_BYTES", "REQUEST_BYTES", "FarSide"]

REQUEST_BYTES: Final = 8
PAYLOAD_BYTES: Final = 2**23
"""Most bytes that one request may ask for."""


class FarSide:
    """The running servers and their addresses.

    Args:
        folder: Where sockets and certificates are put; its path must be short.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = issue(folder, "authority")
        server, self.client = (self.authority.vouch_for(name) for name in ("server", "client"))
        files = (self.authority.certificate, server.certificate, server.private_key)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.far_side", str(folder), *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> FarSide:
        if self._process.stdout is None:
            raise RuntimeError("the servers have no output")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the servers did not start; their messages are above")
        self.addresses: dict[str, str] = json.loads(line)
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate("\n", timeout=30)


def serve_raw(listener: socket.socket) -> None:
    """Answers requests that are nothing but a length with as many bytes, on every connection."""
    payload = memoryview(bytes(PAYLOAD_BYTES))

    def answer(connection: socket.socket) -> None:
        if connection.family != getattr(socket, "AF_UNIX", None):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while request := connection.recv(REQUEST_BYTES):
            connection.sendall(payload[: int.from_bytes(request, "big")])

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def main(folder: Path, authority: Path, certificate: Path, key: Path) -> None:
    """Starts all servers, prints their addresses as JSON, and stops after a line of input."""
    from qr_sampler_grpc.device import Device
    from qr_sampler_grpc.direct.server import serve_direct
    from qr_sampler_grpc.server import ServerTls, serve

    # The device costs nothing, not even a copy, so what is measured is the way to it.
    device = Device(lru_cache(bytes), "constant", max_bytes_per_request=PAYLOAD_BYTES)
    raw_unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raw_unix.bind(str(folder / "raw"))
    raw_unix.listen()
    raw_tcp = socket.create_server(("127.0.0.1", 0))
    serve_raw(raw_unix)
    serve_raw(raw_tcp)
    tls = ServerTls(certificate=certificate, private_key=key)
    mutual = ServerTls(certificate=certificate, private_key=key, client_ca=authority)
    running = {
        "TCP": serve(device, "127.0.0.1:0", max_streams=80),
        "UDS": serve(device, f"unix://{folder / 'grpc'}", max_streams=80),
        "TLS": serve(device, "127.0.0.1:0", tls=tls, max_streams=80),
        "mTLS": serve(device, "127.0.0.1:0", tls=mutual, max_streams=80),
    }
    direct = serve_direct(device, f"unix://{folder / 'direct'}")
    addresses = {name: one.address for name, one in running.items()}
    addresses["direct"] = direct.address
    addresses["raw TCP"] = str(raw_tcp.getsockname()[1])
    addresses["raw UDS"] = str(folder / "raw")
    print(json.dumps(addresses), flush=True)
    sys.stdin.readline()
    direct.stop()
    for one in running.values():
        one.stop()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
