# SPDX-License-Identifier: Apache-2.0
"""Every way in which a server of the direct protocol can fail, played by a raw socket."""

from __future__ import annotations

import errno
import itertools
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import EntropyUnavailableError
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler_grpc.direct import source as source_module
from qr_sampler_grpc.direct.connection import Connection
from qr_sampler_grpc.direct.frame import data_in, encode_answer
from qr_sampler_grpc.direct.reasons import describe_connect_failure
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.direct.status import Status
from qr_sampler_grpc.link import LinkFailure
from qr_sampler_grpc.testing.patience import PATIENT_MS, eventually
from qr_sampler_grpc.testing.scripted_direct import (
    DirectBehaviour,
    DirectRequest,
    ScriptedDirectServer,
    direct_answer,
    hang,
    right,
    sends,
    tagged,
)

TIMEOUT_MS = 60.0
"""The time limit of a draw that is to fail by it."""
STALL_MS = 2000.0
"""The same where part of an answer has to arrive before, on a busy machine too."""
LATEST_S = 30.0
"""More than a busy machine adds to the short limits, and less than the long one."""

Scripted = Callable[[DirectBehaviour], ScriptedDirectServer]
Sources = Callable[..., DirectSource]


@pytest.fixture(autouse=True)
def _numbers_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tells the requests of a test apart."""
    numbers = itertools.count(1)
    monkeypatch.setattr(source_module, "unguessable", lambda: next(numbers))


@pytest.fixture
def source(direct_source: Sources) -> DirectSource:
    return direct_source()


@contextmanager
def limited(source: DirectSource, timeout_ms: float) -> Iterator[None]:
    """Gives the draws within another time limit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_timeout_ns", round(timeout_ms * 1e6))
        yield


def failing_once(fault: DirectBehaviour) -> DirectBehaviour:
    """Fails the second request, so that the first makes a connection that is known to work."""

    def behaviour(end: socket.socket, request: DirectRequest, count: int) -> object:
        return fault(end, request, count) if request.number == 2 else right(end, request, count)

    return behaviour


def late(end: socket.socket, request: DirectRequest, count: int) -> object:
    time.sleep(2 * TIMEOUT_MS / 1000)
    end.sendall(direct_answer(request))
    return True


def dribble(end: socket.socket, request: DirectRequest, count: int) -> object:
    for byte in direct_answer(request):
        end.sendall(bytes((byte,)))
        time.sleep(0.005)
    return True


FAULTS: dict[str, tuple[DirectBehaviour, str, int]] = {
    "late": (late, "in time", 0),
    "hang": (hang, "in time", 0),
    "dribble": (dribble, "in time", 0),
    "short": (
        sends(lambda r: direct_answer(r, data=bytes(99))),
        "asked for 100 bytes, received 99",
        99,
    ),
    "long": (sends(lambda r: direct_answer(r, data=bytes(101))), "received 101", 101),
    "enormous": (
        sends(lambda r: direct_answer(r, data_length=2**32 - 1)),
        "received 4294967295",
        100,
    ),
    "empty": (sends(lambda r: direct_answer(r, data=b"")), "received 0", 0),
    "nothing": (lambda *_: False, "ended where an answer was due", 0),
    "wrong id": (
        sends(lambda r: direct_answer(r, sequence_id=r.number + 1)),
        "number 3 instead of 2",
        100,
    ),
    "old id": (sends(lambda r: direct_answer(r, sequence_id=1)), "the number 1 instead of 2", 100),
    "other commitment": (
        sends(lambda r: direct_answer(r, commitment=b"x")),
        "another commitment",
        100,
    ),
    "other version": (
        sends(lambda r: direct_answer(r, version=2)),
        "version 2 of the direct protocol",
        100,
    ),
    "unknown version": (
        sends(lambda r: direct_answer(r)[:4] + b"\x03" + direct_answer(r)[5:]),
        "version 3 of the direct protocol",
        0,
    ),
    "garbage": (sends(lambda r: b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9), "no frame", 0),
    "device id": (sends(lambda r: direct_answer(r, device_id=b"\xff")), "not UTF-8", 100),
    "header only": (sends(lambda r: direct_answer(r)[:32]), "in time", 0),
    "cut header": (sends(lambda r: direct_answer(r)[:20], then_close=True), "ended where", 0),
    "cut text": (sends(lambda r: direct_answer(r)[:35], then_close=True), "ended where", 0),
    "cut data": (
        sends(lambda r: direct_answer(r)[:-1], then_close=True),
        "ended within an answer",
        99,
    ),
    "stalled data": (sends(lambda r: direct_answer(r)[:-40]), "in time", 60),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_unavailable_in_time_and_forgotten(
    scripted_direct: Scripted, source: DirectSource, name: str
) -> None:
    fault, says, dropped = FAULTS[name]
    server = scripted_direct(failing_once(fault))
    commitment = b"c" if name == "other commitment" else b""
    assert source.committed_draw(100, commitment).data == tagged(1, 100)
    timeout_ms = time_limit(name)
    started_s = time.monotonic()
    with (
        limited(source, timeout_ms),
        pytest.raises(EntropyUnavailableError, match=says) as caught,
    ):
        source.committed_draw(100, commitment)
    took_s = time.monotonic() - started_s
    assert took_s < LATEST_S
    if says == "in time":
        assert took_s >= timeout_ms / 1000
    assert caught.value.dropped_bytes == dropped
    assert source.status().reason == caught.value.reason
    assert not source.status().available
    for number in (3, 4):
        assert source.draw(100).data == tagged(number, 100)
    assert source.status().available
    # A request that was given up at once may be read after those that follow it.
    assert eventually(lambda: sorted(request.number for request in server.requests) == [1, 2, 3, 4])


def time_limit(name: str) -> float:
    """Returns a time limit by which a fault shows, and which is not in its way."""
    _, says, dropped = FAULTS[name]
    if says != "in time":
        return PATIENT_MS
    return STALL_MS if dropped else TIMEOUT_MS


def test_a_long_wait_is_as_exact_as_a_short_one(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    """Reads wait by themselves at first where there is much time, and are cut off by the kernel."""

    def slow(end: socket.socket, request: DirectRequest, count: int) -> object:
        time.sleep(0.15)
        return right(end, request, count) if count == 1 else hang(end, request, count)

    scripted_direct(slow)
    source = direct_source()
    assert source.draw(8).data == tagged(1, 8)
    started_s = time.monotonic()
    with limited(source, 300.0), pytest.raises(EntropyUnavailableError, match="in time"):
        source.draw(8)
    assert 0.3 <= time.monotonic() - started_s < LATEST_S


def test_a_large_answer_that_stalls_is_given_up_in_time(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    scripted_direct(sends(lambda request: direct_answer(request)[:-1]))
    source = direct_source(timeout_ms=STALL_MS)
    started_s = time.monotonic()
    with pytest.raises(EntropyUnavailableError, match="in time") as caught:
        source.draw(2**20)
    assert STALL_MS / 1000 <= time.monotonic() - started_s < LATEST_S
    assert caught.value.dropped_bytes == 2**20 - 1


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_on_the_first_answer_is_unavailable(
    scripted_direct: Scripted, source: DirectSource, name: str
) -> None:
    fault, _, _ = FAULTS[name]
    server = scripted_direct(lambda end, request, count: fault(end, request, count))
    if name in {"wrong id", "old id"}:
        server.behaviour = sends(lambda r: direct_answer(r, sequence_id=9))
    with limited(source, time_limit(name)), pytest.raises(EntropyUnavailableError):
        source.committed_draw(100, b"c")
    server.behaviour = right
    assert source.draw(8).data == tagged(2, 8)


def test_a_repeated_answer_is_never_used(scripted_direct: Scripted, source: DirectSource) -> None:
    scripted_direct(failing_once(sends(lambda r: direct_answer(r) * 2)))
    drawn = [source.draw(100).data for _ in range(2)]
    assert drawn == [tagged(1, 100), tagged(2, 100)]
    with pytest.raises(EntropyUnavailableError, match="before the request left") as caught:
        source.draw(100)
    assert caught.value.dropped_bytes == 100
    assert source.draw(100).data == tagged(4, 100)


def test_an_answer_before_its_request_is_never_used(
    scripted_direct: Scripted, source: DirectSource
) -> None:
    """The numbers are guessed right here: what arrived before the request left is dropped."""

    def eager(end: socket.socket, request: DirectRequest, count: int) -> object:
        end.sendall(
            direct_answer(request) + direct_answer(request._replace(number=request.number + 1))
        )
        return True

    scripted_direct(eager)
    for number in range(1, 21, 2):
        assert source.draw(8).data == tagged(number, 8)
        with pytest.raises(EntropyUnavailableError, match="had arrived before the request") as lost:
            source.draw(8)
        assert lost.value.dropped_bytes == 8
        assert not source.status().available


def test_what_a_peer_sends_unasked_counts_as_its_fault(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    breaker = BreakerOptions.checked(max_consecutive_failures=1, recovery_window_s=3600.0)
    source = direct_source(breaker=breaker)
    server = scripted_direct(sends(lambda request: direct_answer(request) + b"!"))
    assert source.draw(8).data == tagged(1, 8)
    with pytest.raises(EntropyUnavailableError, match="had arrived before the request left"):
        source.draw(8)
    with pytest.raises(EntropyUnavailableError, match="not tried again"):
        source.draw(8)
    assert len(server.requests) == 1


def test_numbers_of_requests_cannot_be_foreseen(
    scripted_direct: Scripted, monkeypatch: pytest.MonkeyPatch, direct_source: Sources
) -> None:
    monkeypatch.undo()
    server = scripted_direct(
        sends(lambda request: direct_answer(request, data=bytes(request.size)))
    )
    with closing(direct_source()) as source:
        for _ in range(200):
            source.draw(8)
    seen = [request.number for request in server.requests]
    assert len(set(seen)) == 200
    assert all(1 <= number < 2**63 for number in seen)
    # Of 200 random bytes, fewer than 65 are distinct with a chance of less than 1e-30.
    assert len({number >> 55 for number in seen}) > 64
    assert len({number & 0xFF for number in seen}) > 64


def test_the_deadline_covers_what_is_done_with_an_answer(
    scripted_direct: Scripted, monkeypatch: pytest.MonkeyPatch, direct_source: Sources
) -> None:
    """Here the answer is read in time, and looked at until it is late."""
    scripted_direct(right)
    source = direct_source()
    assert source.draw(100).data == tagged(1, 100)
    taken = Connection.ask

    def slow(self: Connection, *arguments: Any) -> Any:
        found = taken(self, *arguments)
        while time.monotonic_ns() <= arguments[-1]:
            time.sleep(0.01)
        return found

    with monkeypatch.context() as patch, limited(source, STALL_MS):
        patch.setattr(Connection, "ask", slow)
        with pytest.raises(EntropyUnavailableError, match="in time") as caught:
            source.draw(100)
    assert caught.value.dropped_bytes == 100
    assert source.draw(100).data == tagged(3, 100)


@pytest.mark.parametrize("time_ns", [-1, -(2**63), 0])
def test_a_time_that_is_none_is_unknown(
    scripted_direct: Scripted, time_ns: int, direct_source: Sources
) -> None:
    scripted_direct(sends(lambda request: direct_answer(request, generation_timestamp_ns=time_ns)))
    source = direct_source(max_bytes_per_request=8)
    assert source.draw(8).device_timestamp_ns is None
    assert source.draw(24).device_timestamp_ns is None


def test_what_a_server_sent_is_what_was_drawn_or_dropped(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    """To the byte, through every fault that sends something."""
    faults = [fault for fault, says, _ in FAULTS.values() if says != "in time"]
    chosen = random.Random(7)
    sent = 0

    class Counting:
        """A socket that counts the data of the answers that it sends."""

        def __init__(self, end: socket.socket) -> None:
            self._end = end

        def sendall(self, frame: bytes) -> None:
            nonlocal sent
            self._end.sendall(frame)
            sent += data_in(frame)

        def recv(self, size: int) -> bytes:
            return self._end.recv(size)

    def mixed(end: socket.socket, request: DirectRequest, count: int) -> object:
        fault = chosen.choice([right, *faults])
        return fault(Counting(end), request, count)  # type: ignore[arg-type]

    server = scripted_direct(mixed)
    source = direct_source(max_bytes_per_request=50)
    drawn = dropped = failed = 0
    for _ in range(300):
        try:
            drawn += len(source.draw(chosen.choice([10, 50])).data)
        except EntropyUnavailableError as error:
            dropped += error.dropped_bytes
            failed += 1
    assert failed > 100
    assert drawn > 0
    server.stop()
    assert drawn + dropped == sent


def test_exchanged_answers_are_never_used(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    kept: list[DirectRequest] = []

    def exchanged(end: socket.socket, request: DirectRequest, count: int) -> None:
        kept.append(request)
        if count == 2:
            end.sendall(direct_answer(kept[1]) + direct_answer(kept[0]))
        elif count > 2:
            right(end, request, count)

    scripted_direct(exchanged)
    source = direct_source(max_bytes_per_request=50)
    with pytest.raises(EntropyUnavailableError, match="the number 2 instead of 1"):
        source.draw(100)
    assert source.draw(50).data == tagged(3, 50)


def test_answers_before_the_failed_one_are_counted(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    scripted_direct(lambda end, request, count: right(end, request, count) if count < 3 else False)
    source = direct_source(max_bytes_per_request=50)
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(150)
    assert caught.value.dropped_bytes == 100


@pytest.mark.parametrize("size", [100, 64 * 1024, 64 * 1024 + 1, 300_000])
@pytest.mark.parametrize("cut", [1, 31, 32, 35, 40, 41, 48, 49, 50, 60, 139])
def test_an_answer_in_two_parts_is_one_answer(
    scripted_direct: Scripted, cut: int, size: int, direct_source: Sources
) -> None:
    """Cut within its header, its device id, its commitment and its data: 32, 8 and 9 bytes."""

    def in_two(end: socket.socket, request: DirectRequest, count: int) -> object:
        frame = direct_answer(request)
        end.sendall(frame[:cut])
        time.sleep(0.002)
        end.sendall(frame[cut:])
        return True

    scripted_direct(in_two)
    source = direct_source()
    for number in (1, 2, 3):
        draw = source.committed_draw(size, b"committed")
        assert draw.data == tagged(number, size)
        assert (draw.device_id, draw.commitment_echoed) == ("scripted", True)
    assert len(source._pools.current()._idle) == 1


def test_answers_that_arrive_together_are_told_apart(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    """The first is shorter than expected: the read for it takes a part of the second along."""
    kept: list[bytes] = []

    def together(end: socket.socket, request: DirectRequest, count: int) -> object:
        device = b"scripted" if count == 1 else b"other"
        kept.append(direct_answer(request, device_id=device))
        if count in (1, 4):
            end.sendall(b"".join(kept))
            kept.clear()
        return True

    scripted_direct(together)
    source = direct_source(max_bytes_per_request=50)
    assert source.draw(50).device_id == "scripted"
    draw = source.draw(150)
    assert draw.data == b"".join(tagged(number, 50) for number in (2, 3, 4))
    assert draw.device_id == "other"


WORDS = {
    Status.MALFORMED: "refuses a request for 100 bytes (because); lower QR_DIRECT_MAX_BYTES_PER_",
    Status.EXHAUSTED: "has reached a limit (because); wait",
    Status.UNAVAILABLE: "has no bytes at the moment (because); repair its device",
    Status.TOO_LATE: "was busy until the time was over (because); draw",
    Status.BUSY: "admits no further connection (because); draw",
    Status.DENIED: "does not serve this user (because); run",
    Status.UNREADABLE: "does not understand the request (because); bring",
    Status.DEFECT: "failed (because); see",
    99: "refused with the status 99 (because); see",
}


@pytest.mark.parametrize("status", [one for one in (*Status, 99) if one])
@pytest.mark.parametrize("numbered", [True, False])
def test_every_status_is_a_reason(
    scripted_direct: Scripted, source: DirectSource, status: Any, numbered: bool
) -> None:
    scripted_direct(
        failing_once(
            sends(lambda r: encode_answer(r.number if numbered else 0, status, words="because\n"))
        )
    )
    source.draw(100)
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(100)
    assert WORDS[status] in caught.value.reason
    assert caught.value.dropped_bytes == 0
    assert source.draw(100).data == tagged(3, 100)


def test_long_words_are_cut(scripted_direct: Scripted, source: DirectSource) -> None:
    scripted_direct(
        sends(lambda r: encode_answer(r.number, Status.DEFECT, words="no\x1b[2J " * 500))
    )
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(1)
    assert len(caught.value.reason) < 400
    assert "\x1b" not in caught.value.reason


@pytest.fixture
def listener(socket_path: Path) -> Iterator[socket.socket]:
    """A socket that nothing is read from and nothing answers at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(socket_path))
        listener.listen()
        yield listener


def ask(source: DirectSource, size: int, kind: type[Connection] = Connection) -> LinkFailure:
    """Returns how a request fails over its own connection."""
    with (
        closing(kind(source._endpoint, 2**62)) as connection,
        pytest.raises(LinkFailure) as caught,
    ):
        connection.ask(1, size, 0, b"", 2**62)
    return caught.value


@pytest.mark.parametrize(
    ("early", "says"),
    [
        # A server that is full says so and closes, perhaps before the request is on its way.
        (encode_answer(0, Status.BUSY, words="128 are open"), "128 are open"),
        (direct_answer(DirectRequest(1, 8)), "the number 1 instead of 0"),
    ],
)
def test_of_what_arrives_before_the_request_only_a_refusal_counts(
    listener: socket.socket, source: DirectSource, early: bytes, says: str
) -> None:
    class Late(Connection):
        def _send(self, frames: bytes, deadline: int) -> None:
            end, _ = listener.accept()
            with end:
                end.sendall(early)
            super()._send(frames, deadline)

    assert says in str(ask(source, 8, Late))


def test_a_server_that_reads_nothing_is_given_up(
    listener: socket.socket, direct_source: Sources
) -> None:
    class Full(Connection):
        def _send(self, frames: bytes, deadline: int) -> None:
            with suppress(BlockingIOError):
                while True:
                    self._socket.send(bytes(4096), socket.MSG_DONTWAIT)
            super()._send(frames, deadline)

    assert "reads no requests" in str(ask(direct_source(timeout_ms=TIMEOUT_MS), 8, Full))


@pytest.mark.parametrize("sent", [0, 35, 60])
def test_a_reset_is_the_end_of_the_connection(
    listener: socket.socket, source: DirectSource, sent: int
) -> None:
    class Reset(Connection):
        def _send(self, frames: bytes, deadline: int) -> None:
            end, _ = listener.accept()
            with end:
                super()._send(frames, deadline)
                end.sendall(direct_answer(DirectRequest(1, 99))[:sent])
                # Closed with a request that nobody has read, a socket is reset.

    failure = ask(source, 99, Reset)
    assert "the connection ended" in str(failure)
    assert failure.dropped_bytes == max(0, sent - 40)


def test_no_server_is_named(source: DirectSource, socket_path: Path) -> None:
    with pytest.raises(EntropyUnavailableError, match=r"no socket at unix://.*start the server"):
        source.draw(1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(socket_path))
    with pytest.raises(EntropyUnavailableError, match="no server listens at"):
        source.draw(1)
    assert not source.is_available


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, "this user may not open unix:///x; run as the user of the server"),
        (errno.EMFILE, "cannot connect to unix:///x: Too many open files; see to that first"),
    ],
)
def test_a_failure_to_connect_has_a_remedy(number: int, says: str) -> None:
    error = OSError(number, os.strerror(number))
    assert describe_connect_failure("unix:///x", error).startswith(says)


def test_another_failure_to_connect_is_quoted(socket_path: Path) -> None:
    socket_path.write_text("")
    (socket_path.parent / "loop").symlink_to(socket_path.parent / "loop")
    source = DirectSource(f"unix://{socket_path.parent}/loop/x")
    with pytest.raises(EntropyUnavailableError, match="cannot connect to unix://"):
        source.draw(1)


def test_a_full_queue_of_connections_is_waited_for(
    socket_path: Path, direct_source: Sources
) -> None:
    source = direct_source(timeout_ms=TIMEOUT_MS)
    with ExitStack() as held:
        listener = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(socket_path))
        listener.listen(0)
        if sys.platform == "linux":
            waiting = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            waiting.connect(str(socket_path))
        with pytest.raises(EntropyUnavailableError, match="in time"):
            source.draw(1)


def test_a_platform_without_sockets_is_named(
    source: DirectSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(EntropyUnavailableError, match="no Unix domain sockets"):
        source.draw(1)


def test_a_server_that_was_restarted_between_draws_is_not_noticed(
    scripted_direct: Scripted, source: DirectSource
) -> None:
    first = scripted_direct(right)
    assert source.draw(8).data == tagged(1, 8)
    first.stop()
    second = scripted_direct(right)
    assert source.draw(8).data == tagged(3, 8)
    assert [request.number for request in second.requests] == [3]


def test_the_device_that_answers_may_change(
    scripted_direct: Scripted, source: DirectSource
) -> None:
    """The text before the data is then longer or shorter than the one that is expected."""
    devices = [b"a", b"a" * 200, b"", b"bb", b"bb", "gerät".encode(), b"a"]
    scripted_direct(
        lambda end, request, count: end.sendall(
            direct_answer(request, device_id=devices[count - 1])
        )
    )
    for number, device in enumerate(devices, start=1):
        draw = source.draw(7)
        assert (draw.data, draw.device_id) == (tagged(number, 7), device.decode())
        assert draw.device_timestamp_ns == 5


def test_the_echo_is_reported(scripted_direct: Scripted, source: DirectSource) -> None:
    echoes = [b"ab", b"", b"ab"]
    server = scripted_direct(
        lambda end, request, count: end.sendall(
            direct_answer(request, commitment=echoes[count - 1])
        )
    )
    assert [source.committed_draw(7, b"ab").commitment_echoed for _ in echoes] == [
        True,
        False,
        True,
    ]
    assert [request.commitment for request in server.requests] == [b"ab"] * 3
    server.behaviour = right
    assert source.draw(7).commitment_echoed is None
    with pytest.raises(ValueError, match="65 bytes"):
        source.committed_draw(7, bytes(65))


def test_a_commitment_that_is_switched_off_is_not_sent(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    server = scripted_direct(right)
    source = direct_source(commitment=False)
    assert source.committed_draw(7, b"ab").commitment_echoed is None
    assert [request.commitment for request in server.requests] == [b""]


def test_many_requests_of_one_draw_are_in_flight_at_once(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    kept: list[bytes] = []

    def in_blocks(end: socket.socket, request: DirectRequest, count: int) -> None:
        # As a server that reads all that may be sent before it answers any of it.
        kept.append(
            direct_answer(request, device_id=b"d%d" % (count % 2), generation_timestamp_ns=count)
        )
        if count >= 16:
            end.sendall(kept.pop(0))
        if count == 40:
            end.sendall(b"".join(kept))

    server = scripted_direct(in_blocks)
    source = direct_source(max_bytes_per_request=10)
    draw = source.committed_draw(391, b"c")
    assert draw.data == b"".join(tagged(number, 10) for number in range(1, 40)) + tagged(40, 1)
    assert (draw.requests, draw.device_id, draw.device_timestamp_ns) == (40, "d1, d0", 1)
    assert draw.commitment_echoed is True
    assert [request.size for request in server.requests] == [10] * 39 + [1]


def test_nothing_is_asked_for_before_its_draw(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    server = scripted_direct(right)
    source = direct_source()
    asked: list[int] = []

    def draw_many() -> None:
        for _ in range(2500):
            asked.append(source.draw(8).requested_ns)  # noqa: PERF401

    threads = [threading.Thread(target=draw_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 10_000
    # Of any number of arrivals, as many draws have begun before.
    assert all(
        begun <= arrived
        for begun, arrived in zip(sorted(asked), sorted(server.arrived_ns), strict=True)
    )
    alone = source.draw(8)
    assert alone.requested_ns <= server.arrived_ns[-1] <= alone.received_ns
    time.sleep(0.05)
    assert len(server.requests) == 10_001


def test_closing_leaves_a_draw_under_way_alone(
    scripted_direct: Scripted, direct_source: Sources
) -> None:
    arrived, go = threading.Event(), threading.Event()

    def waits(end: socket.socket, request: DirectRequest, count: int) -> None:
        arrived.set()
        go.wait(LATEST_S)
        right(end, request, count)

    scripted_direct(waits)
    source = direct_source()
    drawn: list[bytes] = []
    thread = threading.Thread(target=lambda: drawn.append(source.draw(8).data))
    thread.start()
    arrived.wait(LATEST_S)
    pool = source._pools.current()
    source.close()
    go.set()
    thread.join()
    assert drawn == [tagged(1, 8)]
    assert pool.take() is None
    assert source.draw(8).data == tagged(2, 8)
    source.close()


def test_an_interrupted_draw_gives_its_connection_up(
    scripted_direct: Scripted, source: DirectSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_direct(right)
    source.draw(8)

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            source.draw(8)
    assert source._pools.current().take() is None
    assert source.draw(8).data == tagged(3, 8)


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_connection_that_ends_between_many_answers_is_a_failure(
    earlier: int, scripted_direct: Scripted, direct_source: Sources
) -> None:
    def behaviour(end: socket.socket, request: DirectRequest, count: int) -> object:
        end.sendall(direct_answer(request))
        return count != earlier + 3

    server = scripted_direct(behaviour)
    source = direct_source(max_bytes_per_request=10)
    for _ in range(earlier):
        source.draw(10)
    # More requests than may be unanswered, so that some leave after answers have come.
    with pytest.raises(EntropyUnavailableError, match="ended where an answer was due") as caught:
        source.draw(400)
    assert caught.value.dropped_bytes == 30
    assert len(server.requests) == earlier + 3
