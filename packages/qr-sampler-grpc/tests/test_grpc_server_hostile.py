# SPDX-License-Identifier: Apache-2.0
"""The server kit against callers who neither send nor read, played by raw HTTP/2 sockets."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.device import answer_memory
from qr_sampler_grpc.device.answer_memory import AnswerMemory, CrowdedError
from qr_sampler_grpc.device.telemetry import Telemetry
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import EntropyServiceStub
from qr_sampler_grpc.server import serve, wait_limits
from qr_sampler_grpc.server.lanes import Lane
from qr_sampler_grpc.server.wait_limits import WaitLimits
from qr_sampler_grpc.testing.patience import PATIENCE_S, eventually

GET_ENTROPY = "/qr_entropy.EntropyService/GetEntropy"
STREAM_ENTROPY = "/qr_entropy.EntropyService/StreamEntropy"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SECRET = "s3cret-key-0xdeadbeef"
ONE = EntropyRequest(bytes_needed=1)
NEVER_S = 3600.0
MANY = 300
"""More calls than the server has threads and places for waiting."""

DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0x0, 0x1, 0x3, 0x4, 0x6
END_HEADERS, END_STREAM, ACK = 0x4, 0x1, 0x1
CANCEL = 0x8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2 (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(headers: dict[str, str]) -> bytes:
    """Literals without indexing (RFC 7541, section 6.2.2)."""
    return b"".join(
        b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in pair)
        for pair in headers.items()
    )


class RawCaller:
    """One connection whose calls go exactly as far as a test says."""

    def __init__(self, address: str, window: int | None = None) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), PATIENCE_S)
        self._next = 1
        settings = b"" if window is None else struct.pack(">HI", 0x4, window)
        self._send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))
        self._send(frame(SETTINGS, ACK, 0))
        self._buffer = b""

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def call(self, path: str, message: bytes | None = None, key: str = "") -> int:
        """Sends the headers of a call, and its message if there is one; returns its stream."""
        stream, self._next = self._next, self._next + 2
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        block = header_block(headers | ({"api-key": key} if key else {}))
        self._send(frame(HEADERS, END_HEADERS, stream, block))
        if message is not None:
            data = b"\x00" + struct.pack(">I", len(message)) + message
            self._send(frame(DATA, END_STREAM, stream, data))
        return stream

    def cancel(self, stream: int) -> None:
        """Ends a call from this side."""
        self._send(frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))

    def settled(self) -> None:
        """Returns when the server has read all that was sent before."""
        self._send(frame(PING, 0, 0, bytes(8)))
        self.until(lambda kind, flags, stream: kind == PING and flags & ACK)

    def until(self, condition: Callable[[int, int, int], object]) -> None:
        """Reads frames until one fulfils *condition*."""
        while True:
            head = self._exactly(9)
            length, (kind, flags, stream) = (
                int.from_bytes(head[:3], "big"),
                struct.unpack(">BBI", head[3:]),
            )
            self._exactly(length)
            if condition(kind, flags, stream):
                return

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            more = self._socket.recv(65536)
            if not more:
                raise EOFError
            self._buffer += more
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def close(self) -> None:
        self._socket.close()


@contextmanager
def raw(address: str, **options: Any) -> Iterator[RawCaller]:
    caller = RawCaller(address, **options)
    try:
        yield caller
    finally:
        caller.close()


@pytest.mark.parametrize("path", [GET_ENTROPY, STREAM_ENTROPY, CHECK, WATCH, REFLECTION])
def test_whoever_has_no_key_holds_up_none_who_has(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their calls have headers and no message, and are never ended for that here."""
    monkeypatch.setattr(wait_limits, "_MESSAGE_S", NEVER_S)
    with (
        serve(ConstantEntropySource(9), "127.0.0.1:0", api_key=SECRET) as server,
        raw(server.address) as hostile,
        grpc.insecure_channel(server.address) as channel,
    ):
        for _ in range(MANY):
            hostile.call(path)
        hostile.settled()
        metadata = (("api-key", SECRET),)
        stub = EntropyServiceStub(channel)
        for _ in range(20):
            assert stub.GetEntropy(ONE, metadata=metadata, timeout=PATIENCE_S).data == b"\t"
        stream = stub.StreamEntropy(iter([ONE, ONE]), metadata=metadata, timeout=PATIENCE_S)
        assert [answer.data for answer in stream] == [b"\t", b"\t"]


@pytest.mark.parametrize("key", ["", SECRET])
def test_calls_without_a_message_do_not_hide_the_health(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_limits, "_MESSAGE_S", NEVER_S)
    with (
        serve(ConstantEntropySource(9), "127.0.0.1:0", api_key=SECRET) as server,
        raw(server.address) as hostile,
        grpc.insecure_channel(server.address) as channel,
    ):
        for path in (GET_ENTROPY, STREAM_ENTROPY, REFLECTION):
            for _ in range(MANY):
                hostile.call(path, key=key)
        hostile.settled()
        check = HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE_S)
        assert check.status == HealthCheckResponse.SERVING


@pytest.mark.parametrize("path", [GET_ENTROPY, CHECK, WATCH])
def test_a_call_without_a_message_is_ended(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_limits, "_MESSAGE_S", 0.05)
    monkeypatch.setattr(wait_limits, "_POLL_S", 0.01)
    with (
        serve(ConstantEntropySource(9), "127.0.0.1:0") as server,
        raw(server.address) as hostile,
        grpc.insecure_channel(server.address) as channel,
    ):
        stream = hostile.call(path)
        for _ in range(25):
            hostile.call(path)
        hostile.until(lambda kind, flags, number: kind == RST_STREAM and number == stream)
        assert EntropyServiceStub(channel).GetEntropy(ONE, timeout=PATIENCE_S).data == b"\t"
        assert HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE_S).status


def test_watchers_that_read_nothing_or_go_hold_up_nobody() -> None:
    source = ConstantEntropySource(9)
    with (
        serve(source, "127.0.0.1:0", api_key=SECRET) as server,
        raw(server.address, window=0) as hostile,
        raw(server.address) as passing,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub, metadata = EntropyServiceStub(channel), (("api-key", SECRET),)
        for _ in range(20):
            hostile.call(WATCH, b"")
        hostile.settled()
        for index in range(40):
            # Each draw changes the health, and watchers come and go meanwhile.
            stream = passing.call(WATCH, b"")
            source.fail_with = "cold" if index % 2 else None
            passing.cancel(stream)
            if index % 2 == 0:
                assert stub.GetEntropy(ONE, metadata=metadata, timeout=PATIENCE_S).data == b"\t"
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    stub.GetEntropy(ONE, metadata=metadata, timeout=PATIENCE_S)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        check = HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE_S)
        assert check.status == HealthCheckResponse.NOT_SERVING


def test_a_call_that_ends_without_a_message_is_told_so() -> None:
    with (
        serve(ConstantEntropySource(9), "127.0.0.1:0") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        for path in (GET_ENTROPY, CHECK):
            with pytest.raises(grpc.RpcError) as caught:
                channel.stream_unary(path)(iter([]), timeout=PATIENCE_S)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "needs one message" in caught.value.details()
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path)(b"\xff\xff", timeout=PATIENCE_S)
            assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_unread_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2**20
    monkeypatch.setattr(answer_memory, "_LEAST_BYTES", 4 * size)
    monkeypatch.setattr(answer_memory, "_UNREAD_S", NEVER_S)
    monkeypatch.setattr(answer_memory, "_WAIT_S", 0.0)
    source = ConstantEntropySource(9)
    with (
        serve(
            source, "127.0.0.1:0", api_key=[SECRET, "other"], max_bytes_per_request=size
        ) as server,
        raw(server.address, window=1) as hostile,
        grpc.insecure_channel(server.address) as channel,
    ):
        message = EntropyRequest(bytes_needed=size).SerializeToString()
        streams = [hostile.call(GET_ENTROPY, message, SECRET) for _ in range(80)]
        refused: set[int] = set()

        def is_refusal(kind: int, flags: int, stream: int) -> bool:
            # Of an answer that is on its way only the first headers come, without an end.
            if kind == HEADERS and flags & END_STREAM:
                refused.add(stream)
            return len(refused) == len(streams) - 3

        hostile.until(is_refusal)
        assert source.requests == [size] * 3
        assert 3 * size < server.device.answer_memory._total <= 4 * size
        # Whoever has another key has their own share.
        stub = EntropyServiceStub(channel)
        answer = stub.GetEntropy(ONE, metadata=(("api-key", "other"),), timeout=PATIENCE_S)
        assert answer.data == b"\t"
        hostile.close()
        assert eventually(lambda: server.device.answer_memory._total == 0)


class Ended(Telemetry):
    """Notes how requests end."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def answered(self, method: str, code: str) -> None:
        self.codes.append(code)


def test_unread_answers_make_way_for_those_who_read(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2**20
    monkeypatch.setattr(answer_memory, "_LEAST_BYTES", 4 * size)
    monkeypatch.setattr(answer_memory, "_UNREAD_S", 0.0)
    with (
        serve(ConstantEntropySource(9), "127.0.0.1:0", max_bytes_per_request=size) as server,
        raw(server.address, window=1) as hostile,
        grpc.insecure_channel(server.address) as channel,
    ):
        message = EntropyRequest(bytes_needed=size).SerializeToString()
        ended = Ended()
        server.device.attach(ended)
        for _ in range(30):
            hostile.call(GET_ENTROPY, message)
        # None of them waits for memory any more, and could take that of an answer that is read.
        assert eventually(lambda: len(ended.codes) == 30)
        for _ in range(10):
            answer = EntropyServiceStub(channel).GetEntropy(
                EntropyRequest(bytes_needed=2**19), timeout=PATIENCE_S
            )
            assert len(answer.data) == 2**19
        assert server.device.answer_memory._total <= 4 * size


@pytest.mark.parametrize("path", [GET_ENTROPY, STREAM_ENTROPY])
def test_an_unread_answer_is_given_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_memory, "_PATIENCE_S", 0.1)
    with (
        serve(ConstantEntropySource(9), "127.0.0.1:0", max_streams=1) as server,
        raw(server.address, window=1) as hostile,
    ):
        stream = hostile.call(path, EntropyRequest(bytes_needed=1000).SerializeToString())
        hostile.until(lambda kind, flags, number: kind == RST_STREAM and number == stream)
        assert eventually(lambda: server.device.answer_memory._total == 0)
        assert eventually(lambda: not server._servicer.lanes[1].is_full)


def test_answers_that_are_read_leave_nothing_behind() -> None:
    with (
        serve(ConstantEntropySource(9), "127.0.0.1:0") as server,
        grpc.insecure_channel(server.address, [("grpc.max_receive_message_length", -1)]) as channel,
    ):
        stub = EntropyServiceStub(channel)
        request = EntropyRequest(bytes_needed=16 * 2**20)
        with ThreadPoolExecutor(8) as pool:
            draws = list(pool.map(lambda _: stub.GetEntropy(request, timeout=60), range(16)))
        assert {len(draw.data) for draw in draws} == {16 * 2**20}
        assert [len(answer.data) for answer in stub.StreamEntropy(iter([ONE] * 3))] == [1] * 3
        with pytest.raises(grpc.RpcError):
            stub.GetEntropy(EntropyRequest(bytes_needed=2**30))
        assert eventually(lambda: server.device.answer_memory._total == 0)


def test_one_holder_cannot_take_the_place_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_memory, "_WAIT_S", 0.0)
    memory = AnswerMemory(2**20)
    share = 128 * 2**20
    taken = [memory.take("one", 2**20) for _ in range(124)]
    with pytest.raises(CrowdedError, match="unread; read them first"):
        memory.take("one", 2**20)
    assert share - 2 * 2**20 < memory._total <= share
    memory.take("other", 2**20).free()
    for place in taken + taken:
        place.free()
    assert memory._total == 0
    for index in range(248):
        memory.take(f"holder {index % 8}", 2**20)
    with pytest.raises(CrowdedError):
        memory.take("another", 2**20)
    assert memory._total <= 2 * share


def test_a_lane_counts_what_it_holds() -> None:
    lane, gate = Lane(1, "lane", waiting=1), threading.Event()
    futures = [lane.submit(gate.wait, PATIENCE_S)]
    assert not lane.is_full
    futures.append(lane.submit(gate.wait, PATIENCE_S))
    assert lane.is_full
    gate.set()
    assert [future.result(PATIENCE_S) for future in futures] == [True, True]
    assert eventually(lambda: not lane.is_full)
    lane.shutdown()
    with pytest.raises(RuntimeError):
        lane.submit(gate.wait)
    assert not lane.is_full


def test_only_a_wait_that_lasts_is_given_up() -> None:
    watch, ended = WaitLimits(), threading.Event()
    try:
        with watch.limit(NEVER_S, pytest.fail), watch.limit(0.0, ended.set):
            assert ended.wait(PATIENCE_S)
    finally:
        watch.stop()
