# SPDX-License-Identifier: Apache-2.0
"""Servers of every profile, signatures, quotas, retries and the circuit breaker, end to end."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from qr_sampler import AMPLIFIERS, ConfigError, EntropyUnavailableError, GuardedSource
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler_grpc.proto import purity_service_pb2_grpc, qrng_pb2_grpc
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.purity_service_pb2 import DrawRequest, DrawResponse
from qr_sampler_grpc.proto.qrng_pb2 import RandomRequest, RandomResponse
from qr_sampler_grpc.protocol.attestation import SigningKey, VerificationKey, signed_record
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.keys import make_key_pair

Scripted = Callable[..., Any]


@contextmanager
def running(add: Callable[[grpc.Server], object]) -> Iterator[str]:
    """Serves what *add* adds, with gRPC's own generated stubs."""
    with ThreadPoolExecutor(8) as executor:
        server = grpc.server(executor)
        add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


class Qrng(qrng_pb2_grpc.QuantumRNGServicer):
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def GetRandomBytes(self, request: RandomRequest, context: Any) -> RandomResponse:  # noqa: N802
        self.sizes.append(request.num_bytes)
        return RandomResponse(
            data=os.urandom(request.num_bytes), timestamp=1_700_000_000_000_123, device_id="ff-1"
        )


def test_qrng_says_when_and_by_what_it_was_measured() -> None:
    servicer = Qrng()
    with running(
        lambda server: qrng_pb2_grpc.add_QuantumRNGServicer_to_server(servicer, server)
    ) as at:
        source = QuantumGrpcSource(at, profile="qrng")
        draw = source.draw(30_000)
        source.close()
    assert len(draw.data) == 30_000
    assert draw.device_id == "ff-1"
    assert draw.device_timestamp_ns == 1_700_000_000_000_123_000
    # The fewest requests that its limit allows.
    assert servicer.sizes == [13_312, 13_312, 3_376]
    assert draw.requests == 3
    assert not source.commits


def test_a_quota_is_refused_before_anything_is_spent() -> None:
    servicer = Qrng()
    with running(
        lambda server: qrng_pb2_grpc.add_QuantumRNGServicer_to_server(servicer, server)
    ) as at:
        source = QuantumGrpcSource(at, profile="qrng", max_requests_per_minute=3)
        source.draw(20_000)
        with pytest.raises(EntropyUnavailableError, match="2 of 3 requests") as caught:
            source.draw(20_000)
        assert caught.value.dropped_bytes == 0
        with pytest.raises(EntropyUnavailableError, match="never fits into 3 a minute"):
            source.draw(60_000)
        assert len(servicer.sizes) == 2
        # The quota is no failure of the server: what still fits is asked for.
        assert len(source.draw(100).data) == 100
        source.close()


class Purity(purity_service_pb2_grpc.PurityServiceServicer):
    def __init__(self, us: list[float]) -> None:
        self.requests: list[DrawRequest] = []
        self._us = us

    def GetDraw(self, request: DrawRequest, context: Any) -> DrawResponse:  # noqa: N802
        u = self._us[len(self.requests) % len(self._us)]
        self.requests.append(request)
        return DrawResponse(
            u=u,
            z=1.5,
            sequence_id=request.sequence_id,
            generation_timestamp_ns=77,
            source_id="lamp",
            purity_label="pure",
            integrated_bytes=4096,
        )

    def StreamDraws(self, request_iterator: Any, context: Any) -> Iterator[DrawResponse]:  # noqa: N802
        for request in request_iterator:
            yield self.GetDraw(request, context)


@pytest.mark.parametrize("mode", ["unary", "server_streaming", "bidi_streaming"])
def test_purity_numbers_reach_the_amplifier_as_they_were_sent(mode: str) -> None:
    us = [0.1234567890123, 1.0 - 2.0**-53, 2.0**-11, 0.5]
    servicer = Purity(us)
    add = purity_service_pb2_grpc.add_PurityServiceServicer_to_server
    with running(lambda server: add(servicer, server)) as at:
        source = QuantumGrpcSource(
            at, profile="qr_purity", mode=mode, source_id="lamp", integrated_bytes=4096
        )
        assert source.integrates
        draw = source.draw(8 * len(us))
        source.close()
    blocks = np.frombuffer(draw.data, dtype=np.uint8).reshape(-1, 8)
    assert AMPLIFIERS.load("server")().amplify(blocks).u.tolist() == us
    assert (draw.device_id, draw.device_timestamp_ns, draw.requests) == ("lamp", 77, 4)
    assert {(one.source_id, one.block_bytes) for one in servicer.requests} == {("lamp", 4096)}


@pytest.mark.parametrize("u", [0.0, 1.0, -0.5, float("nan"), float("inf")])
def test_a_number_outside_the_open_interval_is_no_draw(u: float) -> None:
    add = purity_service_pb2_grpc.add_PurityServiceServicer_to_server
    with running(lambda server: add(Purity([u]), server)) as at:
        source = QuantumGrpcSource(at, profile="qr_purity")
        with pytest.raises(EntropyUnavailableError, match=r"without a draw|open interval"):
            source.draw(8)
        source.close()


def test_a_custom_method_has_declared_fields(scripted: Scripted) -> None:
    def answer(request: bytes, context: Any) -> bytes:
        # Field 7 counts the bytes; field 3 holds them and field 9 names the device.
        assert request[:1] == b"\x38"
        return b"\x1a\x04abcd" + b"\x4a\x03lab"

    server = scripted(answer, "/lab.Noise/Draw")
    source = QuantumGrpcSource(
        server.address,
        profile="custom",
        method_path="/lab.Noise/Draw",
        request_fields="bytes_needed=7",
        answer_fields="data=3,device_id=9",
    )
    draw = source.draw(4)
    source.close()
    assert (draw.data, draw.device_id) == (b"abcd", "lab")


@pytest.mark.parametrize("mode", ["unary", "server_streaming", "bidi_streaming"])
def test_answers_are_verified_with_the_public_key(tmp_path: Path, mode: str) -> None:
    mine, other = (make_key_pair(tmp_path, name) for name in ("mine", "other"))
    with serve(os.urandom, "127.0.0.1:0", signing_key=SigningKey(mine.private)) as server:
        source = QuantumGrpcSource(
            server.address, mode=mode, public_key=mine.public, max_bytes_per_request=2**22
        )
        # In several messages where the mode allows it: the last one signs for all of them.
        draw = source.committed_draw(2**21 + 1, b"digest")
        assert draw.signature_verified is True
        assert draw.commitment_echoed is True
        assert draw.sequence_id is not None
        message = signed_record(
            sequence_id=draw.sequence_id,
            generation_timestamp_ns=draw.device_timestamp_ns or 0,
            device_id=draw.device_id,
            commitment=b"digest",
            data_sha256=hashlib.sha256(draw.data).digest(),
        )
        assert VerificationKey(mine.public).verifies(draw.signature, message)
        assert source.recorded_settings["public_key"] == str(mine.public)
        source.close()
        keyed = QuantumGrpcSource(server.address, mode=mode, api_key="do not tell")
        assert keyed.recorded_settings["mode"] == mode
        assert "do not tell" not in str(keyed.recorded_settings)
        # Several answers have several signatures, of which none stands for all.
        split = QuantumGrpcSource(server.address, mode=mode, max_bytes_per_request=4)
        draw = split.draw(8)
        assert (draw.requests, draw.signature, draw.sequence_id) == (2, b"", None)
        split.close()
        wrong = QuantumGrpcSource(server.address, mode=mode, public_key=other.public)
        with pytest.raises(EntropyUnavailableError, match="not signed with the key"):
            wrong.draw(8)
        wrong.close()


@pytest.mark.parametrize("mode", ["unary", "server_streaming", "bidi_streaming"])
def test_a_step_of_256_rows_is_one_request(scripted_streams: Scripted, mode: str) -> None:
    def honest(request: bytes, context: Any) -> Iterator[bytes]:
        asked = EntropyRequest.FromString(request)
        yield EntropyResponse(
            data=bytes(asked.bytes_needed), sequence_id=asked.sequence_id
        ).SerializeToString()

    server = scripted_streams(honest)
    source = QuantumGrpcSource(server.address, mode=mode, max_bytes_per_request=2**23)
    draw = source.draw(256 * 20_480)
    source.close()
    assert len(draw.data) == 256 * 20_480
    assert draw.requests == len(server.requests) == 1


def failing(times: int) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    count = iter(range(10**6))

    def behave(request: bytes, context: grpc.ServicerContext) -> bytes:
        if next(count) < times:
            context.abort(grpc.StatusCode.UNAVAILABLE, "warming up")
        asked = EntropyRequest.FromString(request)
        return EntropyResponse(data=bytes(asked.bytes_needed)).SerializeToString()

    return behave


def test_nothing_is_tried_again_unless_it_is_allowed(scripted: Scripted) -> None:
    server = scripted(failing(1))
    source = QuantumGrpcSource(server.address)
    with pytest.raises(EntropyUnavailableError, match="warming up"):
        source.draw(8)
    assert len(server.requests) == 1
    source.close()


def test_what_an_allowed_retry_throws_away_is_recorded(scripted: Scripted) -> None:
    sizes = iter([5, 3])

    def short_twice(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = EntropyRequest.FromString(request).bytes_needed
        return EntropyResponse(data=bytes(next(sizes, asked))).SerializeToString()

    server = scripted(short_twice)
    dropped: list[Any] = []
    source = QuantumGrpcSource(server.address, retry_count=2)
    guarded = GuardedSource(source, timeout_ms=60_000, on_dropped=dropped.append)
    assert guarded.draw(8).dropped_bytes == 8
    assert [(one.count, one.reason) for one in dropped] == [(8, "retried")]
    assert len(server.requests) == 3
    source.close()


def test_a_retry_that_cost_nothing_is_not_recorded(scripted: Scripted) -> None:
    server = scripted(failing(2))
    dropped: list[Any] = []
    source = QuantumGrpcSource(server.address, retry_count=2)
    guarded = GuardedSource(source, timeout_ms=60_000, on_dropped=dropped.append)
    assert guarded.draw(8).dropped_bytes == 0
    assert not dropped
    assert len(server.requests) == 3
    server.stop()
    with pytest.raises(EntropyUnavailableError, match="no answer") as caught:
        guarded.draw(8)
    assert caught.value.dropped_bytes == 0, "a refused connection delivers nothing"
    assert not dropped
    source.close()


def test_a_failing_server_is_left_alone_and_found_again(scripted: Scripted) -> None:
    server = scripted(failing(3))
    breaker = BreakerOptions.checked(max_consecutive_failures=3, recovery_window_s=3600)
    source = QuantumGrpcSource(server.address, breaker=breaker)
    for _ in range(3):
        with pytest.raises(EntropyUnavailableError, match="warming up"):
            source.draw(8)
    with pytest.raises(EntropyUnavailableError, match="not tried again for") as caught:
        source.draw(8)
    assert "warming up" in caught.value.reason
    assert not source.is_available
    assert len(server.requests) == 3, "an open circuit asks for nothing"
    source._links.get()._patience._breaker._retry_at -= 3600
    assert len(source.draw(8).data) == 8
    assert source.is_available
    source.close()


@pytest.mark.usefixtures("names_in_a_row")
def test_a_slow_answer_is_given_up_long_before_the_timeout(scripted: Scripted) -> None:
    given_up = threading.Event()

    def behave(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = EntropyRequest.FromString(request)
        if asked.sequence_id == 31:
            given_up.wait(60)
        return EntropyResponse(
            data=bytes(asked.bytes_needed), sequence_id=asked.sequence_id
        ).SerializeToString()

    server = scripted(behave)
    breaker = BreakerOptions.checked(min_timeout_ms=2000)
    source = QuantumGrpcSource(server.address, timeout_ms=60_000, breaker=breaker)
    for _ in range(30):
        source.draw(8)
    with pytest.raises(EntropyUnavailableError, match="in time"):
        source.draw(8)
    assert not given_up.is_set()
    given_up.set()
    assert len(source.draw(8).data) == 8
    source.close()


def test_a_streaming_mode_needs_a_method_that_streams() -> None:
    with pytest.raises(ConfigError, match="give stream_method_path"):
        QuantumGrpcSource(profile="qrng", mode="bidi_streaming")
