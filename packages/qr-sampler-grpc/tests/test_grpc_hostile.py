# SPDX-License-Identifier: Apache-2.0
"""Servers that send what was not requested: too much, too early, too late, or our own words."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

import grpc
import pytest

from qr_sampler import EntropyUnavailableError
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.purity_service_pb2 import DrawRequest, DrawResponse
from qr_sampler_grpc.protocol.contract import Contract
from qr_sampler_grpc.protocol.wire import Answer, FieldWire
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.fields import tagged
from qr_sampler_grpc.testing.patience import PATIENT_MS
from qr_sampler_grpc.testing.scripted import WAYS, answer, honest, source_for
from qr_sampler_grpc.transports.base import Attempt, DeadlineLapsedError
from qr_sampler_grpc.transports.bidi_streaming import BidiStreamingTransport

Scripted = Callable[..., Any]
Limited = Callable[..., AbstractContextManager[None]]
Behaviour = Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]

every_way = pytest.mark.parametrize(("mode", "stubs"), WAYS)
bidi_ways = pytest.mark.parametrize(("mode", "stubs"), WAYS[4:])

MIB = 2**20
UNKNOWN_FIELD = 100


def is_right(data: bytes, n: int = 8) -> bool:
    """Returns whether *data* are *n* times the byte of an honest answer."""
    return len(data) == n and len(set(data)) == 1


def refused(source: QuantumGrpcSource, n: int = 8) -> EntropyUnavailableError:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(n)
    return caught.value


# Size.

LARGE_DRAWS = """
    import resource, sys

    from qr_sampler import EntropyUnavailableError
    from qr_sampler.entropy.breaker_settings import BreakerOptions
    from qr_sampler_grpc.source import QuantumGrpcSource

    def most_mib() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    for stubs in ("sync", "aio"):
        for mode in ("unary", "server_streaming", "bidi_streaming"):
            source = QuantumGrpcSource(
                sys.argv[1],
                mode=mode,
                stubs=stubs,
                timeout_ms=60_000,
                max_bytes_per_request=131_072,
                breaker=BreakerOptions.checked(enabled=False),
            )
            source.draw(131_072)
            before = most_mib()
            try:
                source.draw(7)
            except EntropyUnavailableError as error:
                assert "more than the" in error.reason, error.reason
            source.close()
            print(stubs, mode, round(most_mib() - before))
"""


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_an_answer_of_many_mebibytes_takes_up_no_memory(
    scripted_streams: Scripted, run_python: Callable[..., str], compression: grpc.Compression
) -> None:
    """A right answer with 24 MiB that mean nothing; compressed, it is shorter than the limit."""
    padding = tagged(UNKNOWN_FIELD, bytes(24 * MIB))

    def padded(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        if EntropyRequest.FromString(request).bytes_needed == 7:
            context.set_compression(compression)
            yield answer(request) + padding
        else:
            yield answer(request)

    server = scripted_streams(padded)
    lines = run_python(LARGE_DRAWS, server.address).splitlines()
    assert len(lines) == len(WAYS)
    grown = [int(line.split()[2]) for line in lines]
    assert max(grown) < 12, lines


def test_an_honest_server_may_compress(scripted_streams: Scripted) -> None:
    def compressed(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.set_compression(grpc.Compression.Gzip)
        yield answer(request)

    source = source_for(scripted_streams(compressed), "unary", "sync")
    assert is_right(source.draw(4096).data, 4096)
    source.close()


@every_way
def test_the_largest_answer_has_room_for_all_its_fields(
    scripted_streams: Scripted, mode: str, stubs: str
) -> None:
    def full(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield answer(
            request,
            generation_timestamp_ns=2**63 - 1,
            device_id="d" * 512,
            commitment=bytes(64),
            signature=bytes(64),
        )

    source = source_for(scripted_streams(full), mode, stubs, max_bytes_per_request=5000)
    assert len(source.committed_draw(10_000, bytes(64)).data) == 10_000
    source.close()


def best_s(work: Callable[[], object]) -> float:
    """Returns the shortest of several times of this thread, which other load disturbs least."""
    taken = []
    for _ in range(5):
        began = time.thread_time()
        work()
        taken.append(time.thread_time() - began)
    return min(taken)


@pytest.mark.parametrize("profile", ["qr_entropy", "qrng", "qr_purity", "custom"])
@pytest.mark.parametrize(
    "field",
    [tagged(UNKNOWN_FIELD, 1), tagged(UNKNOWN_FIELD, b""), b"\x0a\x00", b"\xa3\x06\xa4\x06"],
    ids=["numbers", "strings", "data", "groups"],
)
def test_an_answer_of_small_fields_is_read_as_fast_as_protobuf_reads_it(
    profile: str, field: bytes
) -> None:
    """A loop in Python takes a thousand times as long."""
    wire = Contract.declared(profile, mode="unary").wire
    whole = {"qr_purity": DrawResponse(u=0.5)}.get(profile, EntropyResponse(data=b"x"))
    message = whole.SerializeToString() + field * (MIB // len(field))
    assert best_s(lambda: wire.decode(message)) < 50 * best_s(
        lambda: EntropyResponse.FromString(message)
    )


# Time.


class Clock:
    """The clock of attempts, which a test can put forward."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self.ahead_ns


@every_way
def test_an_answer_that_is_ready_too_late_is_dropped_and_recorded(
    scripted_streams: Scripted, monkeypatch: pytest.MonkeyPatch, mode: str, stubs: str
) -> None:
    """It has arrived in time; only to read it takes until after the deadline."""
    source = source_for(scripted_streams(honest), mode, stubs)
    source.draw(8)
    clock = Clock()
    decode = FieldWire.decode

    def slow(wire: FieldWire, message: bytes) -> Answer:
        said = decode(wire, message)
        clock.ahead_ns = round(PATIENT_MS * 1e6)
        return said

    with monkeypatch.context() as patched:
        patched.setattr("qr_sampler_grpc.transports.base.time", clock)
        patched.setattr(FieldWire, "decode", slow)
        error = refused(source)
    assert "in time" in error.reason
    assert error.dropped_bytes == 8
    assert is_right(source.draw(8).data)
    source.close()


@bidi_ways
def test_no_request_leaves_when_time_runs_out_while_a_stream_is_opened(
    scripted_streams: Scripted, monkeypatch: pytest.MonkeyPatch, mode: str, stubs: str
) -> None:
    server = scripted_streams(honest)
    source = source_for(server, mode, stubs)
    open_stream = BidiStreamingTransport._open_stream
    lapsed = False

    def slow(transport: BidiStreamingTransport) -> Any:
        nonlocal lapsed
        lapsed = True
        return open_stream(transport)

    def remaining_s(attempt: Attempt) -> float:
        if lapsed:
            raise DeadlineLapsedError
        return 1.0

    with monkeypatch.context() as patched:
        patched.setattr(BidiStreamingTransport, "_open_stream", slow)
        patched.setattr(Attempt, "remaining_s", remaining_s)
        assert "in time" in refused(source).reason
    assert not server.requests
    source.close()


# What was not asked for.


@bidi_ways
def test_answers_that_are_sent_before_their_requests_are_never_used(
    scripted_streams: Scripted, mode: str, stubs: str
) -> None:
    """With names in a row, the second draw would take what was sent with the first answer."""

    def ahead(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        name = EntropyRequest.FromString(request).sequence_id
        yield answer(request)
        yield answer(request, data=b"too soon", sequence_id=name + 1)

    source = source_for(scripted_streams(ahead), mode, stubs)
    for _ in range(4):
        assert is_right(source.draw(8).data)
        # What lay in the stream spoils the draw that finds it; the next one has another stream.
        error = refused(source)
        assert "which nobody waits for" in error.reason
        assert error.dropped_bytes == 8
    source.close()


@bidi_ways
@pytest.mark.parametrize(("early", "size"), [(b"\xff garbage", 0), (tagged(1, b"1234"), 4)])
def test_what_lies_in_the_stream_is_a_fault_of_the_server(
    scripted_streams: Scripted, mode: str, stubs: str, early: bytes, size: int
) -> None:
    """Sent while nobody has asked: the next draw fails, with those bytes, and counts as failed."""

    def early_as_well(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield answer(request)
        yield early

    breaker = BreakerOptions.checked(max_consecutive_failures=1, recovery_window_s=3600)
    server = scripted_streams(early_as_well)
    source = source_for(server, mode, stubs, breaker=breaker)
    assert is_right(source.draw(8).data)
    assert refused(source).dropped_bytes == size
    assert "not tried again" in refused(source).reason
    source.close()


# Every byte that arrives is in a draw or counted as dropped.


class Counting:
    """Behaves badly in turn and counts the random bytes that it sends."""

    def __init__(self) -> None:
        self.sent = 0
        self._turns = iter(range(10**6))

    def __call__(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        asked = EntropyRequest.FromString(request)
        n = asked.bytes_needed
        turn = next(self._turns) % 7
        size = {1: n - 3, 2: n + 3, 3: 0}.get(turn, n)
        if turn == 4:
            context.abort(grpc.StatusCode.UNAVAILABLE, "tired")
        changes: dict[str, Any] = {"data": bytes(size)}
        if turn == 5:
            changes["sequence_id"] = asked.sequence_id ^ 1
        if turn == 6:
            changes["commitment"] = b"of something else"
        self.sent += size
        yield answer(request, **changes)


@every_way
@pytest.mark.parametrize("retry_count", [0, 2])
def test_every_byte_that_arrives_is_accounted_for(
    scripted_streams: Scripted, mode: str, stubs: str, retry_count: int
) -> None:
    counting = Counting()
    source = source_for(scripted_streams(counting), mode, stubs, retry_count=retry_count)
    accounted = failed = 0
    for _ in range(21):
        try:
            draw = source.committed_draw(16, b"digest")
            accounted += len(draw.data) + draw.dropped_bytes
        except EntropyUnavailableError as error:
            accounted += error.dropped_bytes
            failed += 1
    assert accounted == counting.sent
    assert 0 < failed < 21
    assert not retry_count or failed < 15
    source.close()


@pytest.mark.parametrize("stubs", ["sync", "aio"])
def test_a_number_that_is_no_u_counts_as_dropped(scripted: Scripted, stubs: str) -> None:
    def out_of_range(request: bytes, context: grpc.ServicerContext) -> bytes:
        name = DrawRequest.FromString(request).sequence_id
        return DrawResponse(u=1.5, sequence_id=name).SerializeToString()

    server = scripted(out_of_range, "/qr_purity.PurityService/GetDraw")
    source = QuantumGrpcSource(server.address, profile="qr_purity", stubs=stubs)
    error = refused(source)
    assert "u=1.5 is not inside the open interval (0, 1)" in error.reason
    assert error.dropped_bytes == 8
    source.close()


# The key.


@every_way
def test_a_key_that_the_server_repeats_is_not_passed_on(
    scripted_streams: Scripted, mode: str, stubs: str
) -> None:
    secret = "s3cret-of-ours"

    def gossip(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        if EntropyRequest.FromString(request).bytes_needed == 9:
            context.abort(grpc.StatusCode.INTERNAL, f"the key {secret}\n" * 30)
        yield answer(request, device_id=f"device of {secret}")

    source = source_for(scripted_streams(gossip), mode, stubs, api_key=secret)
    draw = source.draw(8)
    assert draw.device_id.startswith("device of ")
    error = refused(source, 9)
    for text in (draw.device_id, error.reason, str(error), source.status().reason):
        assert secret not in text
        assert "\n" not in text
        assert len(text) < 600
    source.close()


# A path that swallows what it is given.


class Path:
    """Forwards connections to a server; those that are open when it dies then swallow all."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._dead: list[threading.Event] = []
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        return len(self._dead)

    def die(self) -> None:
        for one in self._dead:
            one.set()

    def close(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += near, far
                dead = threading.Event()
                self._dead.append(dead)
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(*pair, dead), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, dead: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if not dead.is_set():
                    sink.sendall(data)


@every_way
def test_a_path_that_has_died_silently_is_left(
    scripted_streams: Scripted, limited: Limited, mode: str, stubs: str
) -> None:
    """The connection stays open and swallows; new ones work."""
    path = Path(scripted_streams(honest).address)
    source = source_for(path, mode, stubs)
    assert is_right(source.draw(8).data)
    path.die()
    for _ in range(2):
        with limited(source, 200.0):
            assert "in time" in refused(source).reason
    assert is_right(source.draw(8).data)
    assert path.connections == 2
    source.close()
    path.close()


@pytest.mark.slow
@every_way
def test_one_slow_answer_costs_no_connection(
    scripted_streams: Scripted, limited: Limited, mode: str, stubs: str
) -> None:
    let_go = threading.Event()

    def slow(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        if EntropyRequest.FromString(request).bytes_needed == 7:
            let_go.wait(60)
        yield answer(request)

    path = Path(scripted_streams(slow).address)
    source = source_for(path, mode, stubs)
    for _ in range(3):
        source.draw(8)
        with limited(source, 200.0):
            refused(source, 7)
    let_go.set()
    source.draw(8)
    assert path.connections == 1
    source.close()
    path.close()
