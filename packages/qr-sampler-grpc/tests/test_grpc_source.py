# SPDX-License-Identifier: Apache-2.0
"""The source against servers that behave well, badly and not at all."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import grpc
import pytest

from qr_sampler import EntropyUnavailableError, FallbackEntropySource, JitClass
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.qrng_pb2 import RandomRequest, RandomResponse
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.patience import NO_BREAKER

SECRET = "s3cret-key-0xdeadbeef"
Scripted = Callable[..., Any]
Limited = Callable[..., AbstractContextManager[None]]


def honest(request: bytes, context: grpc.ServicerContext) -> bytes:
    asked = EntropyRequest.FromString(request)
    return EntropyResponse(
        data=os.urandom(asked.bytes_needed),
        sequence_id=asked.sequence_id,
        generation_timestamp_ns=time.time_ns(),
        device_id="bench-7",
    ).SerializeToString()


def aborting(code: grpc.StatusCode, details: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def behave(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, details)
        raise AssertionError("unreachable")

    return behave


def refusal_of(source: QuantumGrpcSource, n: int = 8) -> str:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(n)
    source.close()
    assert caught.value.source == "quantum_grpc"
    assert source.status().reason == caught.value.reason
    assert not source.is_available
    return caught.value.reason


def test_a_draw_carries_what_the_server_said(scripted: Scripted) -> None:
    server = scripted(honest)
    source = QuantumGrpcSource(server.address)
    before_ns, before_wall_ns = time.monotonic_ns(), time.time_ns()
    draw = source.draw(1000)
    after_ns, after_wall_ns = time.monotonic_ns(), time.time_ns()
    source.close()
    assert len(draw.data) == 1000
    assert draw.source == "quantum_grpc"
    assert draw.device_id == "bench-7"
    assert draw.device_timestamp_ns is not None
    assert before_wall_ns <= draw.device_timestamp_ns <= draw.wall_time_ns <= after_wall_ns
    assert before_ns <= draw.requested_ns < draw.received_ns <= after_ns
    assert draw.requests == 1
    assert draw.commitment_echoed is None
    assert source.jit_class is JitClass.REMOTE


def test_a_silent_server_leaves_provenance_empty(scripted: Scripted) -> None:
    server = scripted(lambda *_: EntropyResponse(data=b"abc").SerializeToString())
    source = QuantumGrpcSource(server.address)
    draw = source.draw(3)
    source.close()
    assert (draw.data, draw.device_id, draw.device_timestamp_ns) == (b"abc", "", None)


def test_names_of_requests_cannot_be_foreseen(scripted: Scripted) -> None:
    """Each bit is a fair coin: 2,000 tosses are out of 800 to 1200 by chance once in 1e18."""
    server = scripted(honest)
    source = QuantumGrpcSource(server.address, breaker=NO_BREAKER)
    for n in (5, 6, 7):
        source.get_random_bytes(n)
    requests = [EntropyRequest.FromString(request) for request in server.requests]
    assert [one.bytes_needed for one in requests] == [5, 6, 7]
    source.close()
    more = (source._request(5, b"").message for _ in range(2000 - len(requests)))
    requests += map(EntropyRequest.FromString, more)
    for bit in range(63):
        assert 800 < sum(one.sequence_id >> bit & 1 for one in requests) < 1200
    assert all(one.sequence_id > 0 for one in requests)


def test_nothing_is_asked_before_or_without_a_draw(scripted: Scripted) -> None:
    server = scripted(honest)
    source = QuantumGrpcSource(server.address)
    assert source.is_available
    assert source.status().reason == "not contacted yet"
    assert source.get_random_bytes(0) == b""
    assert source.draw(0).requests == 0
    with pytest.raises(ValueError, match="negative"):
        source.draw(-1)
    source.close()
    assert server.requests == []


@pytest.mark.usefixtures("names_in_a_row")
def test_a_large_draw_is_split_and_keeps_every_device(scripted: Scripted) -> None:
    def two_devices(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = EntropyRequest.FromString(request)
        return EntropyResponse(
            data=bytes([asked.sequence_id]) * asked.bytes_needed,
            device_id=f"device-{asked.sequence_id % 2}",
            generation_timestamp_ns=1000 - asked.sequence_id,
        ).SerializeToString()

    source = QuantumGrpcSource(scripted(two_devices).address, max_bytes_per_request=4)
    draw = source.draw(10)
    source.close()
    assert draw.data == b"\1\1\1\1\2\2\2\2\3\3"
    assert draw.requests == 3
    assert draw.device_id == "device-1, device-0"
    assert draw.device_timestamp_ns == 997


def test_the_default_fits_the_smallest_server_limit(scripted: Scripted) -> None:
    server = scripted(honest)
    source = QuantumGrpcSource(server.address)
    assert len(source.get_random_bytes(3 * 10_240)) == 3 * 10_240
    source.close()
    sizes = [EntropyRequest.FromString(request).bytes_needed for request in server.requests]
    assert max(sizes) <= 13_312


@pytest.mark.parametrize(
    ("code", "happened", "remedy"),
    [
        ("UNAVAILABLE", "no answer from {address} (because)", "QR_GRPC_SERVER_ADDRESS"),
        ("DEADLINE_EXCEEDED", "no answer from {address} in time (because)", "QR_GRPC_TIMEOUT_MS"),
        ("UNAUTHENTICATED", "{address} asks for an API key and none is set", "QR_GRPC_API_KEY"),
        ("PERMISSION_DENIED", "{address} does not allow this API key", "QR_GRPC_API_KEY"),
        ("RESOURCE_EXHAUSTED", "{address} has reached a limit (because)", "QR_SAMPLE_COUNT"),
        (
            "INVALID_ARGUMENT",
            "{address} refuses a request for 8 bytes (because)",
            "QR_GRPC_MAX_BYTES_PER_REQUEST",
        ),
        (
            "UNIMPLEMENTED",
            "{address} has no method /qr_entropy.EntropyService/GetEntropy",
            "QR_GRPC_METHOD_PATH",
        ),
        ("CANCELLED", "the call to {address} was cancelled", "closed"),
        ("DATA_LOSS", "{address} ended the call with DATA_LOSS (because)", "log of the server"),
    ],
)
def test_every_status_has_a_reason_and_a_remedy(
    scripted: Scripted, code: str, happened: str, remedy: str
) -> None:
    server = scripted(aborting(grpc.StatusCode[code], "because"))
    reason = refusal_of(QuantumGrpcSource(server.address))
    assert reason.startswith(happened.format(address=server.address))
    assert remedy in reason


def test_no_server_is_refused_at_once() -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    # With an hour to wait, only failing fast ends this test.
    source = QuantumGrpcSource(f"localhost:{port}", timeout_ms=3_600_000)
    reason = refusal_of(source)
    assert f"no answer from localhost:{port} (" in reason
    assert "refused" in reason


def test_no_socket_file_is_refused_at_once() -> None:
    source = QuantumGrpcSource("unix:///nonexistent/entropy.sock", timeout_ms=3_600_000)
    assert "no answer from unix:///nonexistent/entropy.sock" in refusal_of(source)


def test_all_requests_of_a_draw_share_its_time(scripted: Scripted) -> None:
    left_s: list[float] = []

    def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        left_s.append(context.time_remaining())
        time.sleep(0.4)
        return honest(request, context)

    source = QuantumGrpcSource(scripted(slow).address, timeout_ms=9000, max_bytes_per_request=1)
    assert source.draw(5).requests == 5
    source.close()
    # Four answers took 1.6 s. Deadlines travel with few digits, of seconds these are rounded up.
    assert left_s[0] - left_s[-1] >= 0.5


@pytest.mark.usefixtures("names_in_a_row")
def test_nothing_is_asked_for_when_no_time_is_left(scripted: Scripted, limited: Limited) -> None:
    given_up = threading.Event()

    def second_too_slow(request: bytes, context: grpc.ServicerContext) -> bytes:
        if EntropyRequest.FromString(request).sequence_id == 2:
            given_up.wait(60)
        return honest(request, context)

    server = scripted(second_too_slow)
    source = QuantumGrpcSource(server.address, timeout_ms=60_000, max_bytes_per_request=1)
    # With the connection open, the time is enough for the first of two requests to be sent.
    source.draw(1)
    with limited(source, 1000):
        assert "in time" in refusal_of(source, 2)
    given_up.set()
    assert len(server.requests) == 2


def test_a_server_that_does_not_speak_grpc_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        port = listener.getsockname()[1]
        reason = refusal_of(QuantumGrpcSource(f"127.0.0.1:{port}", timeout_ms=60_000))
        thread.join()
    assert f"no answer from 127.0.0.1:{port}" in reason


def test_status_follows_the_latest_draw(scripted: Scripted) -> None:
    broken = threading.Event()

    def behave(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"\xff" if broken.is_set() else honest(request, context)

    server = scripted(behave)
    source = QuantumGrpcSource(server.address)
    assert source.probe().available
    assert source.status().reason == ""
    broken.set()
    asked = len(server.requests)
    assert source.is_available, "status must not look at the server"
    assert len(server.requests) == asked
    assert not source.probe().available
    assert not source.status().available
    broken.clear()
    assert source.draw(1).data
    assert source.is_available
    source.close()


def test_only_an_unavailable_server_leads_to_the_fallback(scripted: Scripted) -> None:
    server = scripted(aborting(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota"))
    source = FallbackEntropySource(QuantumGrpcSource(server.address), ConstantEntropySource(3))
    draw = source.draw(2)
    source.close()
    assert (draw.data, draw.fallback) == (b"\3\3", True)
    assert draw.fallback_reason.startswith("quantum_grpc: ")
    assert "quota" in draw.fallback_reason


def test_the_key_travels_on_every_call_under_its_header(scripted: Scripted) -> None:
    server = scripted(honest)
    source = QuantumGrpcSource(server.address, api_key=SECRET, api_key_header="x-qrng-key")
    source.get_random_bytes(1)
    source.get_random_bytes(1)
    source.close()
    assert [call["x-qrng-key"] for call in server.metadata] == [SECRET, SECRET]


def test_no_key_is_sent_when_none_is_set(scripted: Scripted) -> None:
    server = scripted(honest)
    source = QuantumGrpcSource(server.address)
    source.get_random_bytes(1)
    source.close()
    assert "api-key" not in server.metadata[0]


def test_a_refused_key_names_its_header(scripted: Scripted) -> None:
    server = scripted(aborting(grpc.StatusCode.UNAUTHENTICATED, "unknown key"))
    reason = refusal_of(QuantumGrpcSource(server.address, api_key=SECRET, api_key_header="x-key"))
    assert "does not accept the API key sent as 'x-key' (unknown key)" in reason


@pytest.mark.parametrize("code", list(grpc.StatusCode)[1:])
def test_a_key_that_the_server_repeats_stays_secret(
    scripted: Scripted, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    words = f"bad key {SECRET}\r\nINJECTED line " + "x" * 300 + SECRET
    source = QuantumGrpcSource(scripted(aborting(code, words)).address, api_key=SECRET)
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(8)
    source.close()
    logging.getLogger("test").error("draw failed", exc_info=caught.value)
    everything = [
        str(caught.value),
        repr(caught.value),
        source.status().reason,
        "".join(traceback.format_exception(caught.value)),
        caplog.text,
    ]
    assert not any(SECRET in text for text in everything)
    assert "bad key ***" in caught.value.reason
    assert "\n" not in caught.value.reason
    assert "\r" not in caught.value.reason
    assert len(caught.value.reason) < 500


def test_closing_twice_and_drawing_again_works(scripted: Scripted) -> None:
    source = QuantumGrpcSource(scripted(honest).address)
    source.close()
    source.get_random_bytes(1)
    source.close()
    source.close()
    assert len(source.get_random_bytes(2)) == 2
    source.close()


def test_sources_do_not_share_a_connection(scripted: Scripted) -> None:
    peers: list[str] = []

    def note_peer(request: bytes, context: grpc.ServicerContext) -> bytes:
        peers.append(context.peer())
        return honest(request, context)

    server = scripted(note_peer)
    first, second = QuantumGrpcSource(server.address), QuantumGrpcSource(server.address)
    for source in (first, second, first, second):
        source.draw(1)
    first.close()
    second.close()
    assert peers[0] == peers[2]
    assert peers[1] == peers[3]
    assert peers[0] != peers[1]


def test_closing_ends_a_draw_under_way(scripted: Scripted) -> None:
    arrived, stop = threading.Event(), threading.Event()

    def hang(request: bytes, context: grpc.ServicerContext) -> bytes:
        arrived.set()
        stop.wait(60)
        return b""

    source = QuantumGrpcSource(scripted(hang).address, timeout_ms=3_600_000)
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(source.draw, 4)
        assert arrived.wait(60)
        source.close()
        error = drawing.exception(60)
    stop.set()
    assert isinstance(error, EntropyUnavailableError)
    assert "cancelled" in error.reason


def test_a_channel_closed_as_the_call_begins_is_unavailable(scripted: Scripted) -> None:
    source = QuantumGrpcSource(scripted(honest).address)
    source.get_random_bytes(1)
    channel = source._transports.get()._channel.get()  # type: ignore[attr-defined]
    channel.close()
    assert "closed as the call began" in refusal_of(source)


def test_a_qrng_server_is_served_by_its_method_path(scripted: Scripted) -> None:
    method = "/qrng.QuantumRNG/GetRandomBytes"

    def answered(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = RandomRequest.FromString(request)
        # Numbers that only a request of the wire contract has.
        assert asked == RandomRequest(num_bytes=asked.num_bytes)
        return RandomResponse(
            data=os.urandom(asked.num_bytes), timestamp=time.time_ns() // 1000, device_id="firefly"
        ).SerializeToString()

    server = scripted(answered, method)
    source = QuantumGrpcSource(server.address, method_path=method)
    first, second = source.draw(300), source.draw(300)
    source.close()
    assert len(first.data) == len(second.data) == 300
    assert first.data != second.data
    # Fields of unknown meaning are not passed off as facts about the device.
    assert (first.device_id, first.device_timestamp_ns) == ("", None)
