# SPDX-License-Identifier: Apache-2.0
"""The server of the direct protocol: the contract of all sources, refusals, limits and its end."""

from __future__ import annotations

import itertools
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from qr_sampler import ConfigError, EntropyUnavailableError
from qr_sampler.testing import ConstantEntropySource, EntropySourceContract
from qr_sampler_grpc.device import Device, answer_memory
from qr_sampler_grpc.device.telemetry import Telemetry
from qr_sampler_grpc.direct import peers, session
from qr_sampler_grpc.direct.frame import decode_answer_header, encode_request
from qr_sampler_grpc.direct.server import DirectServer, DirectServerStartError, serve_direct
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.direct.status import Status
from qr_sampler_grpc.protocol.attestation import SigningKey
from qr_sampler_grpc.server import serve
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.devices import CountedUrandom, Gate
from qr_sampler_grpc.testing.keys import make_key_pair
from qr_sampler_grpc.testing.patience import NO_BREAKER, PATIENCE_S, eventually

Sources = Callable[..., DirectSource]


@pytest.fixture
def address(socket_path: Path) -> str:
    return f"unix://{socket_path}"


def connected(address: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(address.removeprefix("unix://"))
    return client


class TestContract(EntropySourceContract):
    """The source against the real server."""

    @pytest.fixture
    def far_end(self) -> CountedUrandom:
        return CountedUrandom()

    @pytest.fixture
    def server(self, far_end: CountedUrandom, address: str) -> Iterator[DirectServer]:
        with serve_direct(Device(far_end), address) as server:
            yield server

    @pytest.fixture
    def source(self, server: DirectServer, direct_source: Sources) -> DirectSource:
        return direct_source(max_bytes_per_request=1024)

    @pytest.fixture
    def generation_log(self, far_end: CountedUrandom) -> Callable[[], int]:
        return lambda: far_end.generated

    @pytest.fixture
    def fault(self, server: DirectServer) -> Callable[[], None]:
        return server.stop


def test_a_draw_carries_what_the_server_knows(address: str, direct_source: Sources) -> None:
    device, before_ns = CountedUrandom(), time.time_ns()
    with serve_direct(Device(device, "serial 7"), address):
        source = direct_source()
        plain, committed = source.draw(20_480), source.committed_draw(7, b"digest")
    assert (plain.device_id, plain.commitment_echoed) == ("serial 7", None)
    assert plain.signature_verified is None
    assert plain.device_timestamp_ns is not None
    assert before_ns <= plain.device_timestamp_ns <= time.time_ns()
    assert (len(committed.data), committed.commitment_echoed) == (7, True)
    assert device.commitments == [b"digest"]


def test_many_threads_share_no_bytes(address: str, direct_source: Sources) -> None:
    blocks: list[bytes] = []
    counter = iter(range(10**9))

    def generate(n: int) -> bytes:
        # Never the same eight bytes twice; a device that two threads were in at once would show it.
        return b"".join(struct.pack(">Q", next(counter)) for _ in range(n // 8))

    with serve_direct(Device(generate), address) as server:
        source = direct_source()

        def draw_many() -> None:
            for _ in range(20):
                blocks.append(source.draw(256).data)  # noqa: PERF401

        threads = [threading.Thread(target=draw_many) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Between two draws of a rush only a few connections are kept.
        assert eventually(lambda: server.connections <= 8)
        source.close()
        assert eventually(lambda: server.connections == 0)
    words = [word for block in blocks for word in struct.iter_unpack(">Q", block)]
    assert len(blocks) == 64 * 20
    assert sorted(words) == [(index,) for index in range(64 * 20 * 32)]


def test_one_device_answers_beside_grpc(address: str, direct_source: Sources) -> None:
    counter = iter(range(10**9))
    device = Device(lambda n: next(counter).to_bytes(n, "big"), "shared", bytes_per_day=10**6)
    with serve(device, "127.0.0.1:0") as remote, serve_direct(device, address):
        sources = (
            QuantumGrpcSource(remote.address, breaker=NO_BREAKER),
            direct_source(),
        )
        with ThreadPoolExecutor(8) as pool:
            draws = list(pool.map(lambda index: sources[index % 2].draw(16), range(200)))
    assert {draw.source for draw in draws} == {"quantum_grpc", "direct"}
    assert {draw.device_id for draw in draws} == {"shared"}
    assert sorted(int.from_bytes(draw.data, "big") for draw in draws) == list(range(200))


def test_a_client_that_reads_nothing_is_given_up(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_SEND_TIMEOUT_S", 1)
    with serve_direct(Device(bytes), address) as server, connected(address) as client:
        client.sendall(encode_request(1, 2**22))
        assert eventually(lambda: server.connections == 1)
        assert eventually(lambda: server.connections == 0)


def test_a_failure_to_accept_is_survived(
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    direct_source: Sources,
) -> None:
    class Exhausted:
        def accept(self) -> None:
            monkeypatch.undo()
            raise OSError("too many open files")

    with serve_direct(Device(bytes), address) as server:
        monkeypatch.setattr(server, "_listener", Exhausted())
        source = direct_source()
        assert source.draw(8).data == bytes(8)
    assert "could not be accepted: too many open files" in caplog.text


def test_large_answers_arrive_whole(address: str, direct_source: Sources) -> None:
    data = os.urandom(3 * 2**20)
    with serve_direct(Device(lambda n: data[:n]), address):
        source = direct_source()
        assert source.draw(len(data)).data == data
        assert source.draw(1).data == data[:1]


def test_split_draws_are_measured_request_by_request(address: str, direct_source: Sources) -> None:
    sizes: list[int] = []

    def generate(n: int) -> bytes:
        sizes.append(n)
        return bytes([len(sizes)]) * n

    with serve_direct(Device(generate), address):
        source = direct_source(max_bytes_per_request=10)
        draw = source.draw(495)
    assert sizes == [10] * 49 + [5]
    assert draw.data == b"".join(bytes([index]) * 10 for index in range(1, 50)) + bytes([50]) * 5


def failing(n: int) -> bytes:
    raise OSError("unplugged")


def broken(n: int) -> bytes:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (Device(failing), "has no bytes at the moment .*unplugged"),
        (Device(broken), r"failed \(broken failed with ZeroDivisionError"),
        (Device(lambda n: bytes(n - 1)), "has no bytes at the moment"),
        (Device(bytes, max_bytes_per_request=7), "refuses a request for 8 bytes .*ask for 1 to 7"),
        (Device(bytes, bytes_per_day=15), "has reached a limit .*15 bytes a day"),
        (Device(bytes, requests_per_minute=1), "has reached a limit .*1 requests a minute"),
        (Device(ConstantEntropySource(fail_with="cold")), "has no bytes at the moment .*cold"),
    ],
)
def test_refusals_of_the_device_arrive(
    device: Device, says: str, address: str, direct_source: Sources
) -> None:
    with serve_direct(device, address):
        source = direct_source()
        with suppress(EntropyUnavailableError):
            source.draw(8)
        with pytest.raises(EntropyUnavailableError, match=says):
            source.draw(8)


def test_a_busy_device_is_waited_for_until_the_deadline(
    address: str, direct_source: Sources
) -> None:
    gate = Gate()
    with serve_direct(Device(gate), address) as server:
        patient, hasty = (direct_source() for _ in range(2))
        drawn: list[bytes] = []
        thread = threading.Thread(target=lambda: drawn.append(patient.draw(8).data))
        thread.start()
        assert gate.entered.wait(PATIENCE_S)
        # The deadline of the link stays long, so that a busy machine has time for the last draw.
        hasty._timeout_ns = 50 * 10**6
        with pytest.raises(EntropyUnavailableError, match=r"in time|until the time was over"):
            hasty.draw(8)
        assert eventually(lambda: server.connections == 1)
        gate.open.set()
        thread.join()
        assert drawn == [bytes(8)]
        # The one who was late is gone, and nothing was measured for it.
        assert len(gate.sizes) == 1
        hasty._timeout_ns = patient._timeout_ns
        assert hasty.draw(8).data == bytes(8)


def test_a_client_that_has_gone_is_not_measured_for(address: str) -> None:
    gate = Gate()
    with serve_direct(Device(gate), address) as server:
        with connected(address) as stays, connected(address) as gone:
            stays.sendall(encode_request(1, 4))
            assert gate.entered.wait(PATIENCE_S)
            gone.sendall(encode_request(1, 4) * 3)
            assert eventually(lambda: server.connections == 2)
            time.sleep(0.05)
            gone.close()
            gate.open.set()
            assert len(stays.recv(1000)) > 36
            assert eventually(lambda: server.connections == 1)
        assert len(gate.sizes) == 1


def test_signatures_are_verified(tmp_path: Path, address: str, direct_source: Sources) -> None:
    pair, other = make_key_pair(tmp_path), make_key_pair(tmp_path, "other")
    with serve_direct(Device(os.urandom, signing_key=SigningKey(pair.private)), address):
        source = direct_source(public_key=str(pair.public), max_bytes_per_request=20)
        for n in (8, 50):
            draw = source.committed_draw(n, b"digest")
            assert draw.signature_verified is True
            assert draw.commitment_echoed is True
            # Of several answers each has its own.
            assert bool(draw.signature) == (draw.requests == 1)
            assert (draw.sequence_id is not None) == (draw.requests == 1)
        draw = direct_source().draw(8)
        assert draw.signature_verified is None
        source = direct_source(public_key=str(other.public))
        with pytest.raises(EntropyUnavailableError, match="a wrong signature") as caught:
            source.draw(8)
        assert caught.value.dropped_bytes == 8


def test_an_unsigned_answer_is_refused_where_there_is_a_key(
    tmp_path: Path, address: str, direct_source: Sources
) -> None:
    with serve_direct(Device(os.urandom), address):
        source = direct_source(public_key=str(make_key_pair(tmp_path).public))
        with pytest.raises(EntropyUnavailableError, match="not signed") as caught:
            source.draw(8)
    assert caught.value.dropped_bytes == 8


def test_the_cap_on_connections_is_kept(address: str, direct_source: Sources) -> None:
    gate = Gate()
    with serve_direct(Device(gate), address, max_connections=1) as server:
        first, second = (
            direct_source(),
            direct_source(),
        )
        thread = threading.Thread(target=first.draw, args=(8,))
        thread.start()
        assert gate.entered.wait(PATIENCE_S)
        with pytest.raises(EntropyUnavailableError, match=r"no further connection \(1 are open\)"):
            second.draw(8)
        gate.open.set()
        thread.join()
        # The first one is idle now, and makes way; it connects again for its next draw.
        for source in (second, first, second, second, first):
            assert len(source.draw(8).data) == 8
        assert eventually(lambda: server.connections == 1)


@pytest.mark.parametrize("begun", [b"", encode_request(1, 8)[:-1]])
def test_silent_connections_shut_no_client_out(
    address: str, begun: bytes, direct_source: Sources
) -> None:
    # Other tests of the same process may have left threads that hang.
    before = threading.active_count()
    with serve_direct(Device(os.urandom), address) as server, ExitStack() as silent:
        for _ in range(200):
            silent.enter_context(connected(address)).sendall(begun)
        assert eventually(lambda: server.connections == 128)
        source = direct_source()
        for _ in range(10):
            assert len(source.draw(8).data) == 8
    assert threading.active_count() < before + 100


def test_a_connection_that_makes_way_loses_no_request(address: str, direct_source: Sources) -> None:
    """Two clients at one place: each draw makes the other's connection go."""
    drawn = itertools.count()
    device = Device(lambda n: next(drawn).to_bytes(n, "big"))
    with serve_direct(device, address, max_connections=1):
        sources = [direct_source() for _ in range(2)]
        values = [int.from_bytes(sources[index % 2].draw(8).data, "big") for index in range(200)]
    # Everything measured was delivered.
    assert values == list(range(200))


def test_unread_answers_are_bounded(
    address: str, monkeypatch: pytest.MonkeyPatch, direct_source: Sources
) -> None:
    size = 2**20
    monkeypatch.setattr(answer_memory, "_LEAST_BYTES", 4 * size)
    monkeypatch.setattr(answer_memory, "_UNREAD_S", 3600.0)
    monkeypatch.setattr(answer_memory, "_WAIT_S", 0.0)
    device = Device(bytes, max_bytes_per_request=size)
    with serve_direct(device, address) as server, ExitStack() as unread:
        clients = [unread.enter_context(connected(address)) for _ in range(20)]
        for client in clients:
            client.sendall(encode_request(1, size))
        statuses = [client.recv(32, socket.MSG_WAITALL)[6] for client in clients]
        assert sorted(statuses) == [Status.OK] * 3 + [Status.EXHAUSTED] * 17
        assert device.answer_memory._total <= 4 * size
        # Small answers fit into a socket and are always served.
        source = direct_source()
        assert len(source.draw(8).data) == 8
        monkeypatch.setattr(answer_memory, "_UNREAD_S", 0.0)
        assert len(source.draw(size).data) == size
        source.close()
        unread.close()
        assert eventually(lambda: server.connections == 0)
        assert device.answer_memory._total == 0


def test_a_client_that_reads_a_little_now_and_then_is_given_up(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "reading_time_s", lambda _: 0.1)
    with serve_direct(Device(bytes), address) as server, connected(address) as slow:
        slow.sendall(encode_request(1, 2**24))
        assert eventually(lambda: server.connections == 1)

        def is_over() -> bool:
            with suppress(BlockingIOError, ConnectionResetError):
                slow.recv(4_000, socket.MSG_DONTWAIT)
            return server.connections == 0

        assert eventually(is_over)


def test_a_request_that_is_none_ends_the_connection(address: str) -> None:
    with serve_direct(Device(os.urandom), address), connected(address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: me\r\n\r\n")
        header = decode_answer_header(client.recv(32, socket.MSG_WAITALL), 0, 0)
        assert header.status == Status.UNREADABLE
        words = client.recv(header.text_length, socket.MSG_WAITALL)
        assert words == b"bytes that are no frame of the direct protocol"
        assert client.recv(1) == b""


def test_requests_may_arrive_in_pieces(address: str) -> None:
    with serve_direct(Device(bytes), address), connected(address) as client:
        frames = encode_request(1, 3, 0, b"first") + encode_request(2, 4, 0, b"")
        for index in range(len(frames)):
            client.sendall(frames[index : index + 1])
        for number, size in ((1, 3), (2, 4)):
            header = decode_answer_header(client.recv(32, socket.MSG_WAITALL), number, size)
            client.recv(header.text_length + size, socket.MSG_WAITALL)
        # A half request is none.
        client.sendall(frames[:10])
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


class Heard(Telemetry):
    def __init__(self) -> None:
        self.answers: list[tuple[str, str]] = []

    def answered(self, method: str, code: str) -> None:
        self.answers.append((method, code))


def test_telemetry_hears_of_answers(address: str, direct_source: Sources) -> None:
    device, heard = Device(bytes, max_bytes_per_request=10), Heard()
    device.attach(heard)
    with serve_direct(device, address):
        source = direct_source()
        source.draw(8)
        with pytest.raises(EntropyUnavailableError):
            source.draw(11)
        assert eventually(lambda: len(heard.answers) == 2)
    assert heard.answers == [("direct", "OK"), ("direct", "MALFORMED")]


def test_the_socket_is_private_and_goes_with_the_server(address: str, socket_path: Path) -> None:
    server = serve_direct(Device(os.urandom), address)
    assert server.address == address
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    assert server.wait(0.01)
    with pytest.raises(DirectServerStartError, match="another server listens here"):
        serve_direct(Device(os.urandom), address)
    server.stop()
    server.stop()
    assert not server.wait(0)
    assert not socket_path.exists()


def test_a_place_that_cannot_be_listened_at_is_named(socket_path: Path) -> None:
    with pytest.raises(DirectServerStartError, match="cannot listen at unix://"):
        serve_direct(Device(os.urandom), f"unix://{socket_path.parent}/missing/entropy.sock")


def test_a_socket_that_was_removed_is_no_obstacle(address: str, socket_path: Path) -> None:
    with serve_direct(Device(os.urandom), address):
        socket_path.unlink()
    assert not socket_path.exists()


def test_a_successor_keeps_its_socket(
    address: str, socket_path: Path, direct_source: Sources
) -> None:
    first = serve_direct(Device(os.urandom), address)
    socket_path.unlink()
    with serve_direct(Device(os.urandom), address):
        first.stop()
        source = direct_source()
        assert len(source.draw(8).data) == 8


def test_the_socket_of_a_dead_server_is_replaced(address: str, socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(socket_path))
    with serve_direct(Device(os.urandom), address):
        pass
    socket_path.write_text("precious")
    with pytest.raises(DirectServerStartError, match="not a socket"):
        serve_direct(Device(os.urandom), address)
    assert socket_path.read_text() == "precious"


@pytest.mark.parametrize(
    ("address", "arguments", "says"),
    [
        ("localhost:50051", {}, "use unix:///path"),
        ("unix:///tmp/x.sock", {"max_connections": 0}, "max_connections=0"),
    ],
)
def test_malformed_arguments_are_named(address: str, arguments: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        serve_direct(Device(os.urandom), address, **arguments)  # type: ignore[arg-type]


def test_a_device_id_has_to_fit(address: str) -> None:
    with pytest.raises(ConfigError, match="longer than 255 bytes"):
        serve_direct(Device(os.urandom, "é" * 128), address)


def test_others_are_served_when_they_are_named(
    address: str, socket_path: Path, monkeypatch: pytest.MonkeyPatch, direct_source: Sources
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    me = os.getuid()
    monkeypatch.setattr(peers, "_ROOT", 4_000_001)
    device = Device(os.urandom)
    with serve_direct(device, address):
        source = direct_source()
        with pytest.raises(EntropyUnavailableError, match=f"does not serve this user .uid {me} is"):
            source.draw(8)
    for uids, gids in (((me,), ()), ((), (os.getgid(),))):
        with serve_direct(device, address, allowed_uids=uids, allowed_gids=gids):
            assert stat.S_IMODE(socket_path.stat().st_mode) == 0o666
            assert len(source.draw(8).data) == 8


def test_a_platform_that_does_not_tell_who_connects_serves_one_user(
    address: str, monkeypatch: pytest.MonkeyPatch, direct_source: Sources
) -> None:
    monkeypatch.setattr(peers, "_PEER_CREDENTIALS", None)
    with pytest.raises(ConfigError, match="does not tell who connects"):
        serve_direct(Device(os.urandom), address, allowed_uids=(1,))
    with serve_direct(Device(os.urandom), address):
        source = direct_source()
        assert len(source.draw(8).data) == 8


def test_stopping_lets_a_measurement_finish(address: str, direct_source: Sources) -> None:
    gate = Gate()
    server = serve_direct(Device(gate), address)
    source = direct_source()
    drawn: list[bytes] = []
    thread = threading.Thread(target=lambda: drawn.append(source.draw(8).data))
    thread.start()
    assert gate.entered.wait(PATIENCE_S)
    stopper = threading.Thread(target=server.stop, kwargs={"grace_s": PATIENCE_S})
    stopper.start()
    assert not server.wait(PATIENCE_S)
    gate.open.set()
    stopper.join()
    thread.join()
    assert drawn == [bytes(8)]


def test_stopping_does_not_wait_for_a_device_that_hangs(
    address: str, direct_source: Sources
) -> None:
    gate = Gate()
    server = serve_direct(Device(gate), address)
    source = direct_source()
    reasons: list[str] = []

    def draw() -> None:
        with pytest.raises(EntropyUnavailableError) as caught:
            source.draw(8)
        reasons.append(caught.value.reason)

    thread = threading.Thread(target=draw)
    thread.start()
    assert gate.entered.wait(PATIENCE_S)
    server.stop(grace_s=0.05)
    thread.join()
    gate.open.set()
    assert "ended where an answer was due" in reasons[0]
    assert eventually(lambda: server.connections == 0)


def test_requests_that_wait_when_the_server_stops_are_not_measured(address: str) -> None:
    gate = Gate()
    server = serve_direct(Device(gate), address)
    with connected(address) as client:
        client.sendall(encode_request(1, 4) + encode_request(2, 4))
        assert gate.entered.wait(PATIENCE_S)
        stopper = threading.Thread(target=server.stop, kwargs={"grace_s": PATIENCE_S})
        stopper.start()
        assert not server.wait(PATIENCE_S)
        gate.open.set()
        stopper.join()
        first = decode_answer_header(client.recv(32, socket.MSG_WAITALL), 1, 4)
        client.recv(first.text_length + 4, socket.MSG_WAITALL)
        second = decode_answer_header(client.recv(32, socket.MSG_WAITALL), 2, 4)
    assert (first.status, second.status) == (Status.OK, Status.UNAVAILABLE)
    assert len(gate.sizes) == 1


def test_a_server_without_a_thread_to_spare_says_so(
    address: str, monkeypatch: pytest.MonkeyPatch, direct_source: Sources
) -> None:
    with serve_direct(Device(os.urandom), address) as server:

        def no_thread(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        source = direct_source()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(EntropyUnavailableError, match="no thread to spare"):
                source.draw(8)
        assert len(source.draw(8).data) == 8
        assert server.connections == 1


def test_a_start_at_a_socket_whose_queue_is_full_is_refused_at_once(
    address: str, socket_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy, ExitStack() as waiting:
        busy.bind(str(socket_path))
        busy.listen(0)
        with suppress(BlockingIOError):
            while True:
                client = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                client.setblocking(False)
                client.connect(str(socket_path))
        starters: list[Callable[[], object]] = [
            lambda: serve_direct(Device(os.urandom), address),
            lambda: serve(Device(os.urandom), address),
        ]
        for start in starters:
            refused: list[OSError] = []

            def attempt(start: Callable[[], object] = start) -> None:
                with pytest.raises(OSError, match="another server listens here") as caught:
                    start()
                refused.append(caught.value)  # noqa: B023

            thread = threading.Thread(target=attempt, daemon=True)
            thread.start()
            thread.join(PATIENCE_S)
            assert len(refused) == 1
