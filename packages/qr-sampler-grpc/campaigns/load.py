# SPDX-License-Identifier: Apache-2.0
"""Puts the reference servers under load and looks for bytes that are served twice.

Each server runs as its own process and is asked by 64 clients at once: single calls, streams
that stay open, and streams of one request. They use the generated stubs alone. At the end the
server gets SIGTERM while all of them are still asking. It passes if

- every call before the signal was answered with as many bytes as it asked for,
- no window of 16 bytes, at whatever offset, was received twice,
- the resident memory has not grown by more than a bound since a third of the time,
- the process ends with status 0 and without a traceback, and every client learns of it.

A fourth server, the kit with a device that numbers its words, makes the second point exact: every
answer must hold words that follow each other, and no word may come twice. It is also what shows
that the check can fail: with `--flawed` its device forgets to count, and the campaign must fail.

    python campaigns/load.py --seconds 60
"""

from __future__ import annotations

import argparse
import itertools
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import grpc
import numpy as np
from numpy.typing import NDArray

from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import EntropyServiceStub
from qr_sampler_grpc.server.program import READY_PREFIX, add_options, run

SERVERS = Path(__file__).resolve().parents[3] / "servers"
SIMPLE, COUNTING = "simple_urandom_server", "counting"
NAMES = (SIMPLE, "timing_noise_server", "qrng_template_server", COUNTING)

WORD = 16
SIZES = (16, 32, 64, 512)
MOST_GROWTH_KIB = 32 * 1024
STOPPED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
PATIENCE_S = 60.0

Ask = Callable[[int, int], bytes]


class CountingDevice:
    """Numbers its 16-byte words; the flawed one numbers those of every answer alike."""

    def __init__(self, *, flawed: bool) -> None:
        self._flawed = flawed
        self._next = 0

    def __call__(self, n: int) -> bytes:
        """Returns the next words, *n* bytes of them."""
        first, last = self._next, self._next + n // WORD
        if not self._flawed:
            self._next = last
        return b"".join(number.to_bytes(WORD, "big") for number in range(first, last))


@dataclass
class Outcome:
    """What all clients of one server have seen."""

    answers: list[bytes] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)


class Server:
    """One server as a process, with what it writes to the standard error in a file."""

    def __init__(self, name: str, clients: int, errors: IO[str], *, flawed: bool) -> None:
        self._errors = errors
        self.process = subprocess.Popen(
            command_of(name, clients, flawed=flawed),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line.startswith(READY_PREFIX):
            raise RuntimeError(f"{name} did not start: {self.complaints()}")
        self.address = line.removeprefix(READY_PREFIX).strip()

    def resident_kib(self) -> int:
        """Returns the resident memory of the process; 0 where there is no /proc."""
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            return 0
        (line,) = [one for one in status.read_text().splitlines() if one.startswith("VmRSS:")]
        return int(line.split()[1])

    def complaints(self) -> str:
        """Returns what the process has written to its standard error."""
        self._errors.seek(0)
        return self._errors.read()

    def end(self) -> int:
        """Sends SIGTERM and returns the exit status, that of SIGKILL if nothing happens."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def command_of(name: str, clients: int, *, flawed: bool) -> list[str]:
    """Returns the command line of a server that listens on any port."""
    python = [sys.executable, "-W", "error"]
    if name == SIMPLE:
        return [*python, str(SERVERS / f"{name}.py"), "--address=127.0.0.1:0"]
    options = ["--address=127.0.0.1:0", f"--max-streams={clients}", "--log-level=warning"]
    if name == COUNTING:
        return [*python, __file__, "--serve", *["--flawed"] * flawed, *options]
    return [*python, str(SERVERS / f"{name}.py"), *options]


def single_calls(stub: Any) -> Iterator[Ask]:
    """Yields a way to ask: one call each."""
    yield lambda n, i: bytes_of(
        stub.GetEntropy(EntropyRequest(bytes_needed=n, sequence_id=i), timeout=PATIENCE_S), i
    )


def short_streams(stub: Any) -> Iterator[Ask]:
    """Yields a way to ask: a stream each, closed after its one request."""

    def ask(n: int, i: int) -> bytes:
        request = EntropyRequest(bytes_needed=n, sequence_id=i, accept_chunks=True)
        return b"".join(
            bytes_of(one, i) for one in stub.StreamEntropy(iter([request]), timeout=PATIENCE_S)
        )

    yield ask


def long_stream(stub: Any) -> Iterator[Ask]:
    """Yields a way to ask: one stream for all requests."""
    outgoing: queue.SimpleQueue[EntropyRequest | None] = queue.SimpleQueue()
    call = stub.StreamEntropy(iter(outgoing.get, None))

    def ask(n: int, i: int) -> bytes:
        outgoing.put(EntropyRequest(bytes_needed=n, sequence_id=i))
        return bytes_of(next(call), i)

    try:
        yield ask
    finally:
        outgoing.put(None)


def bytes_of(answer: EntropyResponse, sequence_id: int) -> bytes:
    """Returns the bytes of the answer to the request of that number."""
    if answer.sequence_id != sequence_id:
        raise RuntimeError(f"request {sequence_id} got the answer to {answer.sequence_id}")
    data: bytes = answer.data
    return data


def client(address: str, number: int, outcome: Outcome) -> None:
    """Asks until the server ends."""
    way = (single_calls, long_stream, short_streams, long_stream)[number % 4]
    sizes = random.Random(number)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        for ask in way(EntropyServiceStub(channel)):
            try:
                hammer(ask, sizes, outcome)
            except grpc.RpcError as error:
                note_end(error, outcome)
            except Exception as error:
                outcome.faults.append(f"client {number}: {error!r}")


def hammer(ask: Ask, sizes: random.Random, outcome: Outcome) -> None:
    """Asks for ever; an error of the call ends it."""
    for sequence_id in itertools.count(1):
        n = sizes.choice(SIZES)
        started_s = time.perf_counter()
        data = ask(n, sequence_id)
        outcome.latencies_s.append(time.perf_counter() - started_s)
        outcome.answers.append(data)
        if len(data) != n:
            outcome.faults.append(f"asked for {n} bytes, received {len(data)}")


def note_end(error: grpc.RpcError, outcome: Outcome) -> None:
    """Notes how a client learnt of the end, which must not come before its time."""
    code = error.code()
    outcome.endings.append(code.name)
    if not outcome.stopping.is_set() or code not in STOPPED:
        outcome.faults.append(f"{code.name}: {error.details()}")


def repeated_windows(answers: list[bytes]) -> int:
    """Returns how many windows of 16 bytes, at any offset of an answer, came more than once."""
    windows = [windows_of(data) for data in answers if len(data) >= WORD]
    if not windows:
        return 0
    everything = np.sort(np.concatenate(windows), order=("first", "second"))
    return int(np.count_nonzero(everything[1:] == everything[:-1]))


def windows_of(data: bytes) -> NDArray[np.void]:
    """Returns the windows of one answer; one in eight bytes of long ones, which bounds the memory.

    The starts of the long ones are multiples of eight and all those of the short ones are taken, so
    whatever comes twice in whole words is seen, and in short answers whatever comes twice at all.
    """
    view = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), WORD)
    chosen = np.ascontiguousarray(view[:: 8 if len(data) > 64 else 1])
    windows: NDArray[np.void] = chosen.view([("first", "<u8"), ("second", "<u8")]).ravel()
    return windows


def repeated_words(answers: list[bytes]) -> list[str]:
    """Returns what is wrong with answers that must hold consecutive words, each of them once."""
    faults = []
    words = [np.frombuffer(data, ">u8")[1::2].astype(np.int64) for data in answers]
    if broken := sum(bool(np.any(np.diff(one) != 1)) for one in words):
        faults.append(f"{broken} answers hold words that do not follow each other")
    everything = np.concatenate(words) if words else np.zeros(0, np.int64)
    if repeated := everything.size - np.unique(everything).size:
        faults.append(f"{repeated} words were served twice")
    return faults


def campaign(name: str, clients: int, seconds: float, *, flawed: bool) -> list[str]:
    """Puts one server under load and returns what is wrong with it; prints what was seen."""
    outcome = Outcome()
    with tempfile.TemporaryFile("w+") as errors:
        server = Server(name, clients, errors, flawed=flawed)
        threads = [
            threading.Thread(target=client, args=(server.address, number, outcome), daemon=True)
            for number in range(clients)
        ]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 3)
        before_kib = server.resident_kib()
        time.sleep(seconds * 2 / 3)
        after_kib = server.resident_kib()
        outcome.stopping.set()
        status = server.end()
        for thread in threads:
            thread.join(PATIENCE_S)
        complaints = server.complaints()
    faults = outcome.faults[:10]
    if status != 0:
        faults.append(f"exit status {status}")
    if "Traceback" in complaints:
        faults.append(f"a traceback: {complaints[-2000:]}")
    if after_kib - before_kib > MOST_GROWTH_KIB:
        faults.append(f"the memory grew from {before_kib} to {after_kib} KiB")
    if len(outcome.endings) != clients:
        faults.append(f"{len(outcome.endings)} of {clients} clients learnt of the end")
    if name == COUNTING:
        faults += repeated_words(outcome.answers)
    elif repeated := repeated_windows(outcome.answers):
        faults.append(f"{repeated} windows were served twice")
    report(name, outcome, before_kib, after_kib, seconds)
    return faults


def report(name: str, outcome: Outcome, before_kib: int, after_kib: int, seconds: float) -> None:
    """Prints a line of figures."""
    total = sum(map(len, outcome.answers))
    p50, p99 = np.quantile(outcome.latencies_s or [0.0], [0.5, 0.99]) * 1e3
    print(
        f"{name}: {len(outcome.answers)} answers, {total} bytes, "
        f"{len(outcome.answers) / seconds:.0f} a second, p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
        f"memory {before_kib} -> {after_kib} KiB",
        flush=True,
    )


def main() -> int:
    """Runs the campaign, or the server that numbers its words."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="per server (%(default)s)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--servers", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--flawed", action="store_true", help="the counting device is broken")
    parser.add_argument("--serve", action="store_true", help="be the counting server")
    add_options(parser)
    options = parser.parse_args()
    if options.serve:
        return run(CountingDevice(flawed=options.flawed), options)
    failed = False
    for name in options.servers:
        for fault in campaign(name, options.clients, options.seconds, flawed=options.flawed):
            failed = True
            print(f"FAILED {name}: {fault}", flush=True)
    print("failed" if failed else "passed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
