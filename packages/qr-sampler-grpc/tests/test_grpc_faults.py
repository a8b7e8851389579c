# SPDX-License-Identifier: Apache-2.0
"""Every way in which a server can fail, in every mode: the right refusal, in time, and no leak."""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from types import ModuleType
from typing import Any

import grpc
import pytest

from qr_sampler import EntropyUnavailableError
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.patience import PATIENT_MS
from qr_sampler_grpc.testing.scripted import WAYS, answer, honest, source_for

Scripted = Callable[..., Any]
Behaviour = Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]

every_way = pytest.mark.parametrize(("mode", "stubs"), WAYS)
streaming_ways = pytest.mark.parametrize(("mode", "stubs"), WAYS[2:])
bidi_ways = pytest.mark.parametrize(("mode", "stubs"), WAYS[4:])

Limited = Callable[..., AbstractContextManager[None]]


# Answers here repeat the names of their requests as data.
pytestmark = pytest.mark.usefixtures("names_in_a_row")


def refused(source: QuantumGrpcSource, n: int = 8) -> EntropyUnavailableError:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(n)
    return caught.value


def first_is(behaviour: Behaviour) -> Behaviour:
    """Returns what behaves so once, and honestly from then on."""
    used = threading.Event()

    def behave(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        if used.is_set():
            yield answer(request)
        else:
            used.set()
            yield from behaviour(request, context)

    return behave


def numbered(sequence_id: int, behaviour: Behaviour) -> Behaviour:
    """Returns what behaves so for one request, whenever it comes, and honestly for the others."""

    def behave(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        mine = EntropyRequest.FromString(request).sequence_id == sequence_id
        yield from (behaviour if mine else honest)(request, context)

    return behave


def short(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield answer(request, data=b"short")


def long(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield answer(request, data=bytes(9))


def empty(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield answer(request, data=b"")


def wrong_id(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield answer(request, sequence_id=4711)


def wrong_types(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    # Fields 1 to 3 of wire types that they do not have: skipped, so there is no data.
    yield bytes.fromhex("0805 120161 1a0162")


def garbage(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield b"\xff\xff\xff garbage"


def foreign_commitment(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield answer(request, commitment=b"of another draw")


@every_way
@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (short, "asked for 8 bytes, received 5"),
        (long, "asked for 8 bytes, received 9"),
        (empty, "asked for 8 bytes, received 0"),
        (wrong_id, "names request 4711"),
        (garbage, "no protobuf message"),
    ],
)
def test_a_wrong_answer_is_dropped_and_the_next_draw_has_its_own(
    scripted_streams: Scripted, mode: str, stubs: str, behaviour: Behaviour, reason: str
) -> None:
    server = scripted_streams(first_is(behaviour))
    source = source_for(server, mode, stubs)
    error = refused(source)
    assert reason in error.reason
    assert error.reason.endswith("the answer was dropped")
    assert not source.is_available
    assert source.draw(8).data == b"\2" * 8
    assert source.is_available
    source.close()


@every_way
def test_fields_of_wrong_types_are_no_data(
    scripted_streams: Scripted, mode: str, stubs: str
) -> None:
    source = source_for(scripted_streams(first_is(wrong_types)), mode, stubs)
    assert refused(source).reason.endswith("the answer was dropped")
    assert source.draw(8).data == b"\2" * 8
    source.close()


@every_way
def test_bytes_that_are_not_used_are_counted(
    scripted_streams: Scripted, mode: str, stubs: str
) -> None:
    source = source_for(scripted_streams(short), mode, stubs)
    assert refused(source).dropped_bytes == 5
    source.close()


@every_way
def test_an_echo_of_another_commitment_is_refused(
    scripted_streams: Scripted, mode: str, stubs: str
) -> None:
    source = source_for(scripted_streams(first_is(foreign_commitment)), mode, stubs)
    with pytest.raises(EntropyUnavailableError, match="another commitment") as caught:
        source.committed_draw(8, b"digest")
    assert caught.value.dropped_bytes == 8
    assert source.committed_draw(8, b"digest").commitment_echoed is True
    source.close()


@every_way
def test_an_old_server_echoes_no_commitment(
    scripted_streams: Scripted, mode: str, stubs: str
) -> None:
    def old(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield answer(request, commitment=b"")

    source = source_for(scripted_streams(old), mode, stubs)
    assert source.committed_draw(8, b"digest").commitment_echoed is False
    assert source.draw(8).commitment_echoed is None
    source.close()


@every_way
def test_a_late_answer_never_serves_another_draw(
    scripted_streams: Scripted, limited: Limited, mode: str, stubs: str
) -> None:
    let_go = threading.Event()

    def late(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        let_go.wait(60)
        yield answer(request)

    source = source_for(scripted_streams(numbered(1, late)), mode, stubs)
    began = time.monotonic()
    with limited(source, 200.0):
        assert "in time" in refused(source).reason
    waited_s = time.monotonic() - began
    # Given up at the deadline: not before it, and not when the answer came.
    assert waited_s >= 0.19
    let_go.set()
    assert [source.draw(4).data for _ in range(3)] == [b"\2" * 4, b"\3" * 4, b"\4" * 4]
    source.close()


@every_way
def test_a_silent_server_is_given_up(scripted_streams: Scripted, mode: str, stubs: str) -> None:
    def hang(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from ()

    # A stream that has closed its sending side is ended by such a server, which tells at once.
    tells = mode == "server_streaming"
    source = source_for(
        scripted_streams(hang), mode, stubs, timeout_ms=PATIENT_MS if tells else 200
    )
    assert ("received 0" if tells else "in time") in refused(source).reason
    source.close()


@every_way
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_every_status_is_a_refusal(
    scripted_streams: Scripted, mode: str, stubs: str, code: grpc.StatusCode
) -> None:
    def aborting(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort(code, "because")
        yield b""

    source = source_for(scripted_streams(first_is(aborting)), mode, stubs)
    reason = refused(source).reason
    assert "(because)" in reason
    assert ";" in reason, "there is no remedy"
    assert source.draw(4).data == b"\2" * 4
    source.close()


@bidi_ways
def test_a_duplicate_ends_the_stream(scripted_streams: Scripted, mode: str, stubs: str) -> None:
    def twice(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield answer(request)
        yield answer(request)

    source = source_for(scripted_streams(first_is(twice)), mode, stubs)
    assert source.draw(4).data == b"\1" * 4
    outcomes = []
    for _ in range(3):
        # The duplicate may be seen before the next draw or with it, which it then spoils.
        with suppress(EntropyUnavailableError):
            outcomes.append(source.draw(4).data[0])
    assert outcomes in ([2, 3, 4], [3, 4])
    source.close()


@bidi_ways
def test_reordered_answers_find_their_requests(
    scripted_streams: Scripted, mode: str, stubs: str
) -> None:
    held: list[bytes] = []

    def backwards(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        held.append(request)
        if len(held) == 4:
            for one in reversed(held):
                yield answer(one)

    source = source_for(scripted_streams(backwards), mode, stubs, max_bytes_per_request=2)
    assert source.draw(8).data == b"\1\1\2\2\3\3\4\4"
    source.close()


@bidi_ways
def test_a_stream_without_names_is_not_trusted(
    scripted_streams: Scripted, mode: str, stubs: str
) -> None:
    def nameless(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield answer(request, sequence_id=0)

    source = source_for(scripted_streams(nameless), mode, stubs)
    assert "does not repeat the sequence_id" in refused(source).reason
    source.close()


@pytest.mark.parametrize("stubs", ["sync", "aio"])
def test_chunks_make_up_the_answer(scripted_streams: Scripted, stubs: str) -> None:
    def in_parts(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        asked = EntropyRequest.FromString(request)
        assert asked.accept_chunks
        for start in range(0, asked.bytes_needed, 3):
            size = min(3, asked.bytes_needed - start)
            yield answer(request, data=bytes(range(start, start + size)))

    source = source_for(scripted_streams(in_parts), "server_streaming", stubs)
    assert source.draw(10).data == bytes(range(10))
    source.close()


@pytest.mark.parametrize("stubs", ["sync", "aio"])
def test_chunks_that_end_early_are_refused(scripted_streams: Scripted, stubs: str) -> None:
    def half(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield answer(request, data=b"ab")
        yield answer(request, data=b"cd")

    source = source_for(scripted_streams(half), "server_streaming", stubs)
    error = refused(source, 10)
    assert "asked for 10 bytes, received 4" in error.reason
    assert error.dropped_bytes == 4
    source.close()


@every_way
def test_a_restarted_server_is_used_again(
    scripted_streams: Scripted, lasting_port: int, mode: str, stubs: str
) -> None:
    server = scripted_streams(honest, lasting_port)
    source = source_for(server, mode, stubs)
    assert source.draw(4).data == b"\1" * 4
    server.stop()
    # The asyncio interface may call it an internal error.
    assert server.address in refused(source).reason
    again = scripted_streams(honest, server.port)
    assert again.port == server.port
    deadline = time.monotonic() + 30
    while True:
        try:
            draw = source.draw(4)
            break
        except EntropyUnavailableError:
            assert time.monotonic() < deadline, "the server was not found again"
            time.sleep(0.05)
    assert draw.data == bytes([EntropyRequest.FromString(again.requests[-1]).sequence_id]) * 4
    source.close()


@bidi_ways
def test_a_server_that_went_away_between_draws_costs_no_draw(
    scripted_streams: Scripted, lasting_port: int, mode: str, stubs: str
) -> None:
    server = scripted_streams(honest, lasting_port)
    source = source_for(server, mode, stubs)
    source.draw(4)
    server.stop()
    scripted_streams(honest, server.port)
    transport: Any = source._transports.get()
    deadline = time.monotonic() + 30
    while not transport._stream.ended:
        assert time.monotonic() < deadline, "the end of the stream was not noticed"
        time.sleep(0.01)
    # The end of the connection comes right after that of its stream; nothing tells of it.
    time.sleep(1.0)
    assert source.draw(4).data == b"\2" * 4
    source.close()


@every_way
def test_a_connection_that_is_reset_is_a_refusal(mode: str, stubs: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset() -> None:
            connection, _ = listener.accept()
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        source = QuantumGrpcSource(address, mode=mode, stubs=stubs, timeout_ms=PATIENT_MS)
        # The asyncio interface may call it an internal error.
        assert address in refused(source).reason
        thread.join()
    source.close()


@pytest.mark.heavy
@pytest.mark.slow
def test_requests_arrive_within_the_draws_that_they_serve(
    campaign: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["just_in_time.py", "--draws=2000"])
    assert campaign("just_in_time").main() == 0
