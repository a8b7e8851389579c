# SPDX-License-Identifier: Apache-2.0
"""What is measured: modes, addresses and payloads, taking turns within each round."""

from __future__ import annotations

import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from benchmarks.far_side import PAYLOAD_BYTES, REQUEST_BYTES, FarSide
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest
from qr_sampler_grpc.source import QuantumGrpcSource

__all__ = [
    "BLOCKS",
    "BLOCK_BYTES",
    "PAUSES_MS",
    "Measured",
    "concurrent_unary",
    "measure",
    "paths",
]

BLOCK_BYTES: Final = 20_480
BLOCKS: Final = (1, 16, 64)
"""Blocks per draw: the rows of a step."""

PAUSES_MS: Final = (0.0, 1.0)
"""How long the client computes between two draws: not at all, and for the shortest step of a real
engine, which is about a millisecond."""

_MODES: Final = ("unary", "server_streaming", "bidi_streaming")
_PACED: Final = (
    ("raw socket", "UDS"),
    ("raw, settimeout", "UDS"),
    ("direct", "UDS"),
    ("bidi_streaming", "UDS"),
)
"""What is also measured with pauses."""
_TURN: Final = 100
"""Draws of one way before it is the turn of another. What disturbs the machine disturbs them all,
and a turn is long enough to be back to back: of 20 draws, each is some 5 % slower."""
_PACED_TURN: Final = 10
"""The same with pauses, where every draw stands by itself and a turn may be short."""
_WARM_UP_SHARE: Final = 5
"""One draw in so many, at the beginning of each turn, does not count."""
_NS_PER_US: Final = 1000
_NS_PER_MS: Final = 1_000_000
_TIMEOUT_S: Final = 5.0
_PATIENT: Final = BreakerOptions.checked(min_timeout_ms=_TIMEOUT_S * 1000)
"""Keeps its books like any other, but never trips: that would end the measurement."""

Path = tuple[str, str, Callable[[int], object]]
"""Mode, kind of address, and what draws a number of bytes."""


@dataclass(slots=True)
class Measured:
    """Latencies of one mode, address, payload and pace."""

    mode: str
    address: str
    blocks: int
    pause_ms: float
    rounds_us: list[list[float]] = field(default_factory=list)

    @property
    def p50_us(self) -> float:
        """Median over the rounds of each round's median."""
        return statistics.median(statistics.median(one) for one in self.rounds_us)

    @property
    def p99_us(self) -> float:
        """99th percentile of all latencies."""
        return statistics.quantiles([us for one in self.rounds_us for us in one], n=100)[-1]

    def as_dict(self) -> dict[str, Any]:
        """Returns what a report needs."""
        return {
            "mode": self.mode,
            "address": self.address,
            "blocks": self.blocks,
            "pause_ms": self.pause_ms,
            "p50": round(self.p50_us, 1),
            "p99": round(self.p99_us, 1),
        }


def paths(far_side: FarSide) -> Iterator[Path]:
    """Yields all ways to the bytes, the bare sockets first."""
    for kind in ("UDS", "TCP"):
        yield "raw socket", kind, _raw(_connected(far_side.addresses[f"raw {kind}"]))
    yield "raw, settimeout", "UDS", _raw_in_time(_connected(far_side.addresses["raw UDS"]))
    yield (
        "direct",
        "UDS",
        DirectSource(
            far_side.addresses["direct"], max_bytes_per_request=PAYLOAD_BYTES, breaker=_PATIENT
        ).draw,
    )
    for kind in ("UDS", "TCP", "TLS", "mTLS"):
        for mode in _MODES:
            yield mode, kind, _source(far_side, kind, mode, "sync").draw
    for mode in _MODES:
        yield f"{mode} (aio)", "UDS", _source(far_side, "UDS", mode, "aio").draw


def measure(ways: Iterator[Path], rounds: int, draws: int) -> list[Measured]:
    """Returns the latencies of *ways*; larger payloads are drawn less often.

    Every way is measured back to back. The bare socket, ``direct`` and the fastest gRPC mode of the
    same address are measured with pauses, too.
    """
    open_ways = list(ways)
    results = []
    for pause_ms in PAUSES_MS:
        chosen = [way for way in open_ways if not pause_ms or way[:2] in _PACED]
        for blocks in BLOCKS:
            table = [Measured(mode, kind, blocks, pause_ms) for mode, kind, _ in chosen]
            for number in range(rounds):
                pace = f"pauses of {pause_ms:g} ms" if pause_ms else "back to back"
                _show(f"{blocks} x {BLOCK_BYTES} bytes, {pace}, round {number + 1} of {rounds}")
                _play_round(chosen, table, max(draws // blocks, _TURN))
            results += table
    return results


def concurrent_unary(far_side: FarSide, rounds: int) -> dict[int, float]:
    """Returns the microseconds of B unary calls of one block each that run at once, by B."""
    channel = grpc.insecure_channel(far_side.addresses["UDS"])
    method: Any = channel.unary_unary("/qr_entropy.EntropyService/GetEntropy")
    request = EntropyRequest(bytes_needed=BLOCK_BYTES, sequence_id=1).SerializeToString()

    def batch(count: int) -> float:
        began = time.perf_counter_ns()
        calls = [method.future(request) for _ in range(count)]
        for call in calls:
            call.result()
        return (time.perf_counter_ns() - began) / _NS_PER_US

    medians = {}
    with channel:
        for count in BLOCKS[1:]:
            _show(f"{count} unary calls at once")
            batch(count)
            medians[count] = statistics.median(
                statistics.median(batch(count) for _ in range(10)) for _ in range(rounds)
            )
    return medians


def _play_round(ways: Sequence[Path], table: Sequence[Measured], draws: int) -> None:
    for row in table:
        row.rounds_us.append([])
    turn = _PACED_TURN if table[0].pause_ms else _TURN
    for _ in range(draws // turn):
        for (_, _, draw), row in zip(ways, table, strict=True):
            row.rounds_us[-1] += _turn(draw, row.blocks * BLOCK_BYTES, turn, row.pause_ms)


def _turn(draw: Callable[[int], object], size: int, draws: int, pause_ms: float) -> list[float]:
    latencies = []
    for _ in range(draws):
        _compute(pause_ms)
        began = time.perf_counter_ns()
        draw(size)
        latencies.append((time.perf_counter_ns() - began) / _NS_PER_US)
    return latencies[draws // _WARM_UP_SHARE :]


def _compute(pause_ms: float) -> None:
    """Keeps this core busy, as an engine does between two draws."""
    until_ns = time.perf_counter_ns() + pause_ms * _NS_PER_MS
    while pause_ms and time.perf_counter_ns() < until_ns:
        pass


def _source(far_side: FarSide, kind: str, mode: str, stubs: str) -> QuantumGrpcSource:
    options: dict[str, Any] = {"mode": mode, "stubs": stubs}
    if "TLS" in kind:
        options |= {"tls_enabled": True, "tls_ca_cert": far_side.authority.certificate}
    if kind == "mTLS":
        options |= {
            "tls_client_cert": far_side.client.certificate,
            "tls_client_key": far_side.client.private_key,
        }
    return QuantumGrpcSource(
        far_side.addresses[kind],
        breaker=_PATIENT,
        max_bytes_per_request=PAYLOAD_BYTES,
        **options,
    )


def _connected(address: str) -> socket.socket:
    if address.isdigit():
        connection = socket.create_connection(("127.0.0.1", int(address)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(address)
    return connection


def _raw(connection: socket.socket) -> Callable[[int], object]:
    """Returns the least that fetches bytes: one call to ask, and one that waits for the answer."""

    def ask(size: int) -> bytes:
        connection.sendall(size.to_bytes(REQUEST_BYTES, "big"))
        data = connection.recv(size, socket.MSG_WAITALL)
        if len(data) != size:
            raise ConnectionError(f"asked for {size} bytes, received {len(data)}")
        return data

    return ask


def _raw_in_time(connection: socket.socket) -> Callable[[int], object]:
    """Returns the same with Python's own timeouts, which cost a system call for each read."""
    connection.settimeout(_TIMEOUT_S)
    buffer = memoryview(bytearray(PAYLOAD_BYTES))

    def ask(size: int) -> bytes:
        connection.sendall(size.to_bytes(REQUEST_BYTES, "big"))
        received = 0
        while received < size:
            count = connection.recv_into(buffer[received:size])
            if not count:
                raise ConnectionError(f"asked for {size} bytes, received {received}")
            received += count
        # A draw returns bytes of its own, so what it is compared with does, too.
        return bytes(buffer[:size])

    return ask


def _show(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)
