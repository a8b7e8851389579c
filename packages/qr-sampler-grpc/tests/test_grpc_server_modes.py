# SPDX-License-Identifier: Apache-2.0
"""What the kit makes of a plain function: the modes, chunks, commitments, deadlines and quotas."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from qr_sampler import ConfigError
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import EntropyServiceStub
from qr_sampler_grpc.protocol.attestation import SigningKey, signed_message
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.server.servicer import CHUNK_BYTES
from qr_sampler_grpc.testing.devices import Gate
from qr_sampler_grpc.testing.keys import make_key_pair

MEBIBYTE = 2**20


@contextmanager
def stub_for(address: str) -> Iterator[Any]:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        yield EntropyServiceStub(channel)


def status_of(attempt: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        attempt()
    return caught.value.code(), caught.value.details() or ""


class Counting:
    """A device whose bytes are numbered in words of eight, so that a repeated one shows."""

    def __init__(self) -> None:
        self.words = 0
        self.sizes: list[int] = []

    def __call__(self, n: int) -> bytes:
        self.sizes.append(n)
        first, self.words = self.words, self.words + -(-n // 8)
        return b"".join(word.to_bytes(8, "big") for word in range(first, self.words))[:n]


def words_of(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 8], "big") for at in range(0, len(data), 8)]


@pytest.mark.parametrize("accept_chunks", [False, True])
def test_a_function_serves_all_modes(accept_chunks: bool) -> None:
    device = Counting()
    with serve(device, "127.0.0.1:0") as server, stub_for(server.address) as stub:
        request = EntropyRequest(bytes_needed=8, sequence_id=3, accept_chunks=accept_chunks)
        assert words_of(stub.GetEntropy(request).data) == [0]
        # One request and a half-close.
        (answer,) = stub.StreamEntropy(iter([request]))
        assert (words_of(answer.data), answer.sequence_id) == ([1], 3)
        # A stream that stays open.
        outgoing: queue.SimpleQueue[EntropyRequest | None] = queue.SimpleQueue()
        call = stub.StreamEntropy(iter(outgoing.get, None))
        for word in range(2, 5):
            assert len(device.sizes) == word
            outgoing.put(request)
            assert words_of(next(call).data) == [word]
        outgoing.put(None)
        assert list(call) == []


@pytest.mark.parametrize(
    ("n", "lengths"),
    [
        (1, [1]),
        (MEBIBYTE, [MEBIBYTE]),
        (MEBIBYTE + 1, [MEBIBYTE, 1]),
        (2 * MEBIBYTE, [MEBIBYTE] * 2),
        (3 * MEBIBYTE + 5, [MEBIBYTE] * 3 + [5]),
    ],
)
def test_large_answers_come_in_chunks_to_those_who_accept_them(n: int, lengths: list[int]) -> None:
    assert CHUNK_BYTES == MEBIBYTE
    with serve(lambda n: bytes(n), "127.0.0.1:0") as server, stub_for(server.address) as stub:
        request = EntropyRequest(bytes_needed=n, sequence_id=9, commitment=b"c", accept_chunks=True)
        answers = list(stub.StreamEntropy(iter([request])))
        assert [len(answer.data) for answer in answers] == lengths
        assert {(one.sequence_id, one.device_id, one.commitment) for one in answers} == {
            (9, "device", b"c")
        }
        assert len({answer.generation_timestamp_ns for answer in answers}) == 1
        # A single call has one answer, and so has a stream that does not say that it wants more.
        assert len(stub.GetEntropy(request).data) == n
        request.accept_chunks = False
        assert [len(one.data) for one in stub.StreamEntropy(iter([request]))] == [n]


def test_chunks_of_one_request_are_the_measurement_in_order() -> None:
    with serve(Counting(), "127.0.0.1:0") as server, stub_for(server.address) as stub:
        sizes = (2 * MEBIBYTE + 8, 16, MEBIBYTE + 8)
        requests = [
            EntropyRequest(bytes_needed=n, sequence_id=i, accept_chunks=True)
            for i, n in enumerate(sizes)
        ]
        answers = list(stub.StreamEntropy(iter(requests)))
    assert [one.sequence_id for one in answers] == [0, 0, 0, 1, 2, 2]
    whole = words_of(b"".join(one.data for one in answers))
    assert whole == list(range(sum(sizes) // 8))


def message_of(answer: EntropyResponse, data: bytes) -> bytes:
    return signed_message(
        sequence_id=answer.sequence_id,
        generation_timestamp_ns=answer.generation_timestamp_ns,
        device_id=answer.device_id,
        commitment=answer.commitment,
        data=data,
    )


def record_of(answer: EntropyResponse, data: bytes) -> bytes:
    """Returns what records hold of an answer, as the specification of ledgers lays it out."""
    device = answer.device_id.encode()
    return (
        b"qr-entropy-v2: "
        + answer.sequence_id.to_bytes(8, "big")
        + answer.generation_timestamp_ns.to_bytes(8, "big")
        + len(device).to_bytes(4, "big")
        + device
        + len(answer.commitment).to_bytes(4, "big")
        + answer.commitment
        + hashlib.sha256(data).digest()
    )


def test_signatures_cover_the_whole_answer_however_it_travels(
    tmp_path: Path,
) -> None:
    pair = make_key_pair(tmp_path)
    with (
        serve(lambda n: bytes(n), "127.0.0.1:0", signing_key=SigningKey(pair.private)) as server,
        stub_for(server.address) as stub,
    ):
        request = EntropyRequest(
            bytes_needed=2 * MEBIBYTE + 1, sequence_id=5, commitment=b"c" * 64, accept_chunks=True
        )
        single = stub.GetEntropy(request)
        pair.public_key.verify(single.signature, message_of(single, single.data))
        chunks = list(stub.StreamEntropy(iter([request])))
        assert [bool(one.signature) for one in chunks] == [False, False, True]
        whole = b"".join(one.data for one in chunks)
        pair.public_key.verify(chunks[-1].signature, message_of(chunks[-1], whole))
        assert [bool(one.record_signature) for one in chunks] == [False, False, True]
        for one in (single, chunks[-1]):
            pair.public_key.verify(one.record_signature, record_of(one, whole))


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"x", grpc.StatusCode.UNAVAILABLE), (None, grpc.StatusCode.INTERNAL)],
)
def test_a_wrong_answer_of_the_function_ends_the_call(
    answer: Any, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(lambda n: answer, "127.0.0.1:0") as server, stub_for(server.address) as stub:
        request = EntropyRequest(bytes_needed=2)
        assert status_of(lambda: stub.GetEntropy(request))[0] is code
        assert status_of(lambda: next(stub.StreamEntropy(iter([request]))))[0] is code
    assert caplog.text.count(code.name) == 2


def test_a_request_waits_for_the_device_until_its_own_deadline_and_is_not_measured() -> None:
    device = Gate()
    with serve(device, "127.0.0.1:0") as server, stub_for(server.address) as stub:
        first = stub.GetEntropy.future(EntropyRequest(bytes_needed=1))
        device.entered.wait()
        for attempt in (
            lambda: stub.GetEntropy(EntropyRequest(bytes_needed=2), timeout=0.2),
            lambda: next(stub.StreamEntropy(iter([EntropyRequest(bytes_needed=3)]), timeout=0.2)),
        ):
            assert status_of(attempt)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        gone = stub.GetEntropy.future(EntropyRequest(bytes_needed=4))
        last = stub.GetEntropy.future(EntropyRequest(bytes_needed=5))
        gone.cancel()
        # Answered without the device, and behind the cancellation on the same connection.
        for _ in range(3):
            status_of(lambda: stub.GetEntropy(EntropyRequest()))
        device.open.set()
        assert len(first.result().data) == 1
        assert len(last.result().data) == 5
    assert device.sizes == [1, 5]


def test_requests_that_time_out_waiting_give_their_threads_back() -> None:
    device = Gate()
    with serve(device, "127.0.0.1:0") as server, stub_for(server.address) as stub:
        request = EntropyRequest(bytes_needed=1)
        first = stub.GetEntropy.future(request)
        device.entered.wait()
        # More than the server has threads.
        waiting = [stub.GetEntropy.future(request, timeout=0.2) for _ in range(40)]
        for call in waiting:
            assert status_of(call.result)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        # Answered without the device, which is still held.
        attempt = partial(stub.GetEntropy, EntropyRequest(), timeout=30)
        assert status_of(attempt)[0] is grpc.StatusCode.INVALID_ARGUMENT
        device.open.set()
        assert first.result().data
    assert device.sizes == [1]


def test_two_listeners_share_the_lock_and_the_quota_of_their_device() -> None:
    device = Device(Counting(), "shared", requests_per_minute=3)
    request = EntropyRequest(bytes_needed=8)
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(device, "127.0.0.1:0")) for _ in range(2)]
        assert all(server.device is device for server in servers)
        stubs = [stack.enter_context(stub_for(server.address)) for server in servers]
        answers = [stubs[turn % 2].GetEntropy(request) for turn in range(3)]
        assert [words_of(answer.data) for answer in answers] == [[0], [1], [2]]
        for stub in stubs:
            code, _ = status_of(partial(stub.GetEntropy, request))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_calls_without_end_are_refused_rather_than_kept() -> None:
    device = Gate()
    with (
        serve(device, "127.0.0.1:0", max_streams=1) as server,
        stub_for(server.address) as stub,
    ):
        request = EntropyRequest(bytes_needed=1)
        calls = [stub.GetEntropy.future(request, timeout=60) for _ in range(400)]
        assert status_of(calls[-1].result)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        device.open.set()
        served = sum(call.exception(timeout=60) is None for call in calls)
        assert 200 < served < 400
    assert len(device.sizes) == served


def test_each_request_of_a_stream_counts_against_the_quota() -> None:
    device = Counting()
    with (
        serve(device, "127.0.0.1:0", requests_per_minute=3) as server,
        stub_for(server.address) as stub,
    ):
        requests = [EntropyRequest(bytes_needed=1)] * 5
        call = stub.StreamEntropy(iter(requests))
        for _ in range(3):
            next(call)
        for attempt in (lambda: next(call), lambda: stub.GetEntropy(requests[0])):
            code, details = status_of(attempt)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details.startswith("the quota of 3 requests a minute is used up; try again in ")
    assert device.sizes == [1, 1, 1]


def test_each_key_has_a_quota_of_its_own() -> None:
    with (
        serve(Counting(), "127.0.0.1:0", api_key=("one", "two"), bytes_per_day=10) as server,
        stub_for(server.address) as stub,
    ):
        request = EntropyRequest(bytes_needed=10)
        for secret in ("one", "two"):
            metadata = (("api-key", secret),)
            assert len(stub.GetEntropy(request, metadata=metadata).data) == 10
            code, details = status_of(partial(stub.GetEntropy, request, metadata=metadata))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "10 bytes a day" in details


@pytest.mark.parametrize(
    "options",
    [{"device_id": "x"}, {"max_bytes_per_request": 1}, {"bytes_per_day": 1}],
)
def test_what_belongs_to_the_device_is_given_to_the_device(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        serve(Device(Counting()), "127.0.0.1:0", **options)


@pytest.mark.parametrize(
    "options",
    [{"max_streams": 0}, {"max_bytes_per_request": 0}, {"requests_per_minute": 0}],
)
def test_a_limit_of_nothing_is_a_mistake(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="=0"):
        serve(Counting(), "127.0.0.1:0", **options)


def test_stopping_lets_running_requests_finish_and_refuses_the_next() -> None:
    device = Gate()
    with ExitStack() as stack:
        server = stack.enter_context(serve(device, "127.0.0.1:0"))
        stub = stack.enter_context(stub_for(server.address))
        outgoing: queue.SimpleQueue[EntropyRequest | None] = queue.SimpleQueue()
        stream = stub.StreamEntropy(iter(outgoing.get, None))
        outgoing.put(EntropyRequest(bytes_needed=1))
        device.entered.wait()
        stopping = threading.Thread(target=server.stop, args=(60.0,))
        stopping.start()
        # Its effect is seen from outside: no new call is let in.
        while (
            status_of(lambda: stub.GetEntropy(EntropyRequest(bytes_needed=2), timeout=0.05))[0]
            is grpc.StatusCode.DEADLINE_EXCEEDED
        ):
            pass
        outgoing.put(EntropyRequest(bytes_needed=3))
        device.open.set()
        assert len(next(stream).data) == 1
        assert status_of(lambda: next(stream)) == (
            grpc.StatusCode.UNAVAILABLE,
            "the server is being stopped",
        )
        stopping.join()
    assert device.sizes == [1]


def test_stopping_under_load_ends_every_call_and_every_thread() -> None:
    counting = Counting()
    endings: list[grpc.StatusCode] = []
    words: list[int] = []
    busy = threading.Barrier(13)

    def single(address: str) -> None:
        with stub_for(address) as stub:
            hammer(lambda: stub.GetEntropy(EntropyRequest(bytes_needed=64)))

    def stream(address: str) -> None:
        with stub_for(address) as stub:
            outgoing: queue.SimpleQueue[EntropyRequest | None] = queue.SimpleQueue()
            call = stub.StreamEntropy(iter(outgoing.get, None))

            def ask() -> EntropyResponse:
                outgoing.put(EntropyRequest(bytes_needed=64))
                answer: EntropyResponse = next(call)
                return answer

            hammer(ask)
            outgoing.put(None)

    def hammer(ask: Callable[[], EntropyResponse]) -> None:
        words.extend(words_of(ask().data))
        busy.wait()
        try:
            while True:
                words.extend(words_of(ask().data))
        except grpc.RpcError as error:
            endings.append(error.code())

    server = serve(counting, "127.0.0.1:0")
    threads = [
        threading.Thread(target=work, args=(server.address,)) for work in (single, stream) * 6
    ]
    for thread in threads:
        thread.start()
    busy.wait()
    server.stop()
    for thread in threads:
        thread.join()
    assert len(endings) == 12
    assert set(endings) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert len(set(words)) == len(words)
    left = [one.name for one in threading.enumerate() if one.name.startswith("qr-entropy-server")]
    assert left == []


def test_refusals_carry_their_facts_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    source = ConstantEntropySource()
    with serve(source, "127.0.0.1:0") as server, stub_for(server.address) as stub:
        status_of(lambda: stub.GetEntropy(EntropyRequest()))
    (record,) = [one for one in caplog.records if one.name == "qr_sampler.grpc"]
    facts = vars(record)
    assert (facts["method"], facts["code"]) == ("GetEntropy", "INVALID_ARGUMENT")
    assert facts["peer"].startswith("ipv4:127.0.0.1:")
