# SPDX-License-Identifier: Apache-2.0
"""An entropy server with prepared bytes in a process of its own, on a Unix socket."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.sources import PreparedSource
from benchmarks.timing import unpin
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.source import QuantumGrpcSource

__all__ = ["remote_source"]


@contextlib.contextmanager
def remote_source() -> Iterator[QuantumGrpcSource]:
    """Starts a server and yields a source that fetches any batch from it in one request.

    Raises:
        RuntimeError: When the server does not come up.
    """
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix://{folder}/entropy.sock"
        command = [sys.executable, "-m", "benchmarks.entropy_server", address]
        # Leaving the block closes the pipes, and with them the server.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError("the entropy server ended before it listened; see above")
            source = QuantumGrpcSource(address, max_bytes_per_request=16 * 2**20)
            with contextlib.closing(source):
                yield source


def main() -> None:
    """Serves at the address on the command line until the standard input ends."""
    unpin()
    with serve(PreparedSource(), sys.argv[1]) as server:
        print(server.address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
