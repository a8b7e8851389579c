# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker and the adaptive deadline of the direct source."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qr_sampler import EntropyUnavailableError
from qr_sampler.entropy.breaker import BreakerState
from qr_sampler.entropy.breaker_settings import BreakerOptions
from qr_sampler_grpc.direct.frame import Status, encode_answer
from qr_sampler_grpc.direct.source import DirectSource

LATEST_S = 30.0
LONG_MS = 60_000.0


class Server:
    """Answers each request with zeros, or as a test tells it."""

    def __init__(self, path: Path) -> None:
        self.status = Status.OK
        self.mute = threading.Event()
        self.timeouts_us: list[int] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def asked(self) -> int:
        return len(self.timeouts_us)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                self._ends.append(end)
                self._threads.append(threading.Thread(target=self._serve, args=(end,), daemon=True))
                self._threads[-1].start()

    def _serve(self, end: socket.socket) -> None:
        with suppress(OSError), end:
            while head := end.recv(24, socket.MSG_WAITALL):
                _, number, size, timeout_us = struct.unpack(">HqII", head[6:])
                self.timeouts_us.append(timeout_us)
                if self.mute.is_set():
                    continue
                if self.status:
                    end.sendall(encode_answer(number, self.status, words="said so"))
                else:
                    end.sendall(encode_answer(number, data_length=size) + bytes(size))

    def stop(self) -> None:
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(LATEST_S)


@pytest.fixture
def server(socket_path: Path) -> Iterator[Server]:
    server = Server(socket_path)
    yield server
    server.stop()


Sources = Callable[..., DirectSource]


@pytest.fixture
def make(socket_path: Path) -> Iterator[Sources]:
    made: list[DirectSource] = []

    def source(timeout_ms: float = LONG_MS, **breaker: float) -> DirectSource:
        options = BreakerOptions.checked(**breaker)
        made.append(DirectSource(f"unix://{socket_path}", timeout_ms=timeout_ms, breaker=options))
        return made[-1]

    yield source
    for one in made:
        one.close()


def fail(source: DirectSource) -> str:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(8)
    # Of an open circuit the status says for how long, too; that changes while it is asked.
    assert source.status().reason.startswith(caught.value.reason.partition("; not tried again")[0])
    assert not source.status().available
    return caught.value.reason


def test_an_open_circuit_refuses_at_once_with_the_reason(server: Server, make: Sources) -> None:
    source = make(max_consecutive_failures=2, recovery_window_s=3600)
    server.status = Status.UNAVAILABLE
    assert "said so" in fail(source)
    assert "said so" in fail(source)
    server.status = Status.OK
    reason = fail(source)
    assert "said so" in reason
    assert "; not tried again for " in reason
    assert server.asked == 2


def test_failures_must_follow_each_other(server: Server, make: Sources) -> None:
    source = make(max_consecutive_failures=2, recovery_window_s=3600)
    for _ in range(4):
        server.status = Status.UNAVAILABLE
        fail(source)
        server.status = Status.OK
        assert source.draw(8).data == bytes(8)
    assert server.asked == 8


def test_a_missing_server_opens_the_circuit(make: Sources) -> None:
    source = make(max_consecutive_failures=1, recovery_window_s=3600)
    assert fail(source).startswith("there is no socket at ")
    assert "not tried again" in fail(source)


def test_a_probe_decides(server: Server, make: Sources) -> None:
    source = make(max_consecutive_failures=1, recovery_window_s=0.01)
    server.status = Status.DEFECT
    fail(source)
    time.sleep(0.02)
    server.status = Status.OK
    assert source.draw(8).data == bytes(8)
    assert source.status().available
    assert source._links.get()._patience.state is BreakerState.CLOSED


def test_there_is_one_probe_at_a_time(server: Server, make: Sources) -> None:
    source = make(max_consecutive_failures=1, recovery_window_s=0.01)
    server.status = Status.DEFECT
    fail(source)
    time.sleep(0.02)
    server.mute.set()
    probe = threading.Thread(target=_quietly, args=(source,))
    probe.start()
    assert eventually(lambda: server.asked == 2)
    assert "whether it has recovered is being tried" in fail(source)
    assert server.asked == 2
    server.stop()
    probe.join(LATEST_S)
    assert not probe.is_alive()


def eventually(condition: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + LATEST_S
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.001)
    return condition()


def _quietly(source: DirectSource) -> None:
    with suppress(EntropyUnavailableError):
        source.draw(8)


def test_the_deadline_is_learnt_and_told_to_the_server(server: Server, make: Sources) -> None:
    source = make(min_samples=3, min_timeout_ms=1000, max_consecutive_failures=1)
    for _ in range(3):
        source.draw(8)
    assert all(30e6 < timeout_us <= 60e6 for timeout_us in server.timeouts_us)
    learnt_ms = source._links.get()._patience._deadline.milliseconds(8)
    assert 1000 <= learnt_ms < LONG_MS
    server.mute.set()
    started_s = time.monotonic()
    assert "no answer from" in fail(source)
    assert learnt_ms / 1000 <= time.monotonic() - started_s < LATEST_S
    assert eventually(lambda: server.asked == 4)
    assert 0 < server.timeouts_us[-1] <= 1000 * learnt_ms + 1


@pytest.mark.parametrize(("has_fallback", "shortest_ms"), [(True, 7.0), (False, 40_000.0)])
def test_it_is_more_patient_where_nothing_takes_over(
    server: Server, make: Sources, has_fallback: bool, shortest_ms: float
) -> None:
    source = make(min_samples=1, min_timeout_ms=7, min_timeout_ms_without_fallback=40_000)
    source.has_fallback = has_fallback
    source.draw(8)
    deadline_ms = source._links.get()._patience._deadline.milliseconds(8)
    # A busy machine may have answered so slowly that the multiple of that is more.
    assert shortest_ms <= deadline_ms
    assert has_fallback is (deadline_ms < 40_000.0)


@pytest.mark.parametrize("status", [None, Status.TOO_LATE])
def test_a_draw_that_was_given_up_counts_with_its_whole_time(
    server: Server, make: Sources, status: Status | None
) -> None:
    source = make(min_samples=1, min_timeout_ms=50)
    source.draw(8)
    deadline = source._links.get()._patience._deadline
    before_ms = deadline.milliseconds(8)
    if status is None:
        server.mute.set()
    else:
        server.status = status
    fail(source)
    assert deadline.milliseconds(8) > 1.49 * before_ms


def test_another_failure_teaches_nothing(server: Server, make: Sources) -> None:
    source = make(min_samples=1, min_timeout_ms=50)
    server.status = Status.UNAVAILABLE
    fail(source)
    assert source._links.get()._patience._deadline.milliseconds(8) == LONG_MS


def test_without_a_breaker_every_draw_asks(server: Server, make: Sources) -> None:
    source = make(enabled=False)
    server.status = Status.UNAVAILABLE
    for _ in range(10):
        assert "said so" in fail(source)
    assert server.asked == 10


def test_nothing_is_asked_for_no_bytes(server: Server, make: Sources) -> None:
    source = make(max_consecutive_failures=1, recovery_window_s=3600)
    server.status = Status.UNAVAILABLE
    fail(source)
    assert source.draw(0).data == b""
    assert not source.status().available


def test_the_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_CB_MAX_CONSECUTIVE_FAILURES", "7")
    source = DirectSource.from_environment()
    assert source._breaker_options.max_consecutive_failures == 7
