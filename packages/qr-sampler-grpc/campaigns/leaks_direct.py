# SPDX-License-Identifier: Apache-2.0
"""Fails ten thousand draws of the direct source and counts descriptors, threads and memory.

The draws fail in turn in every way that a socket allows: no server, no answer in time, an answer
that is short, long, cut, misnumbered or noise, one of a megabyte that nobody reads to its end, one
that is there before its request, a refusal, a connection that is closed. After each failed draw one
that succeeds must get its own bytes. At the end the process must hold what it held at the
beginning, on the side of the client and on that of the real server, which answers the draws that
succeed and whose only place for a connection is taken by silent ones again and again.

    python campaigns/leaks_direct.py --draws 10000
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from holdings import Held, settled

from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.direct.frame import encode_answer
from qr_sampler_grpc.direct.server import serve_direct
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.direct.status import Status

TIMEOUT_MS = 4.0
MEMORY_SLACK_MIB = 8.0
"""What an allocator may hold more of at the end than after the cycles that warm up."""
SIZE = 1000


def answer(number: int, size: int) -> bytes:
    """Returns a right answer."""
    return encode_answer(number, device_id=b"faulty", data_length=size) + bytes(size)


FAULTS: dict[str, Callable[[int], bytes | None]] = {
    "hang": lambda number: b"",
    "close": lambda number: None,
    "short": lambda number: answer(number, SIZE - 1),
    "long": lambda number: answer(number, SIZE + 1),
    "cut header": lambda number: answer(number, SIZE)[:10],
    "cut data": lambda number: answer(number, SIZE)[:-1],
    "wrong id": lambda number: answer(number + 1, SIZE),
    "endless": lambda number: answer(number, 2**20),
    "unasked": lambda number: answer(number, SIZE) + answer(number + 1, SIZE),
    "noise": lambda number: os.urandom(SIZE),
    "refusal": lambda number: encode_answer(number, Status.UNAVAILABLE, words="cold"),
}
"""What is sent instead of an answer to the request of that number; ``None`` closes."""


class FaultyServer:
    """Answers every request with the fault that is set, one connection at a time."""

    def __init__(self, path: str) -> None:
        self.fault = "hang"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                with end, suppress(OSError):
                    self._serve(end)

    def _serve(self, end: socket.socket) -> None:
        while head := end.recv(24, socket.MSG_WAITALL):
            (number,) = struct.unpack_from(">q", head, 8)
            said = FAULTS[self.fault](number)
            if said is None:
                return
            end.sendall(said)

    def stop(self) -> None:
        """Ends the server once its client has gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def fail(source: DirectSource, *, after_one: bool = False) -> str:
    """Returns how a draw failed; empty when it did not.

    Args:
        source: What draws.
        after_one: Whether the draw before it has to succeed.
    """
    if after_one:
        source.draw(SIZE)
    try:
        source.draw(SIZE)
    except EntropyUnavailableError as error:
        return error.reason
    return ""


def run(draws: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Returns how many draws failed in which way, and what went wrong."""
    # Every draw has to reach the server.
    always = BreakerOptions.checked(enabled=False)
    good = DirectSource(f"unix://{folder}/good", timeout_ms=60_000, breaker=always)
    bad = f"unix://{folder}/bad"
    faulty = FaultyServer(f"{folder}/bad")
    source = DirectSource(bad, timeout_ms=TIMEOUT_MS, breaker=always)
    patient = DirectSource(bad, timeout_ms=60_000, breaker=always)
    nobody = DirectSource(f"unix://{folder}/nobody", timeout_ms=TIMEOUT_MS, breaker=always)
    kinds, wrong, names = Counter[str](), list[str](), [*FAULTS, "no server"]
    stamp = iter(range(10**9))

    def generate(n: int) -> bytes:
        return next(stamp).to_bytes(8, "big") * (n // 8)

    with serve_direct(Device(generate), f"unix://{folder}/good", max_connections=1):
        for index in range(draws):
            name = names[index % len(names)]
            if name != "no server":
                faulty.fault = name
            asking = {"no server": nobody, "unasked": patient}.get(name, source)
            if not fail(asking, after_one=asking is patient):
                wrong.append(f"{name}: the draw succeeded")
            kinds[name] += 1
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
                silent.connect(f"{folder}/good")
            if good.draw(8).data != index.to_bytes(8, "big"):
                wrong.append(f"after {name}: the bytes of another draw")
        for one in (source, nobody, patient, good):
            one.close()
        faulty.stop()
    return kinds, wrong


def main() -> int:
    """Runs the campaign and returns the exit status: 1 on a leak or a draw that did not fail."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=10_000)
    options = parser.parse_args()
    started_s = time.monotonic()
    for draws in (100, options.draws):
        with tempfile.TemporaryDirectory(prefix="qr") as folder:
            before = Held.now()
            kinds, wrong = run(draws, Path(folder))
            after = settled(before, MEMORY_SLACK_MIB)
    for kind, count in sorted(kinds.items()):
        print(f"{kind:12s} {count:7,d}")
    for problem in wrong[:20]:
        print(problem, file=sys.stderr)
    print(
        f"{options.draws:,} failed draws, {len(wrong)} wrong; {after.since(before)}; "
        f"{time.monotonic() - started_s:.0f} s"
    )
    return 1 if wrong or not after.is_within(before, MEMORY_SLACK_MIB) else 0


if __name__ == "__main__":
    sys.exit(main())
