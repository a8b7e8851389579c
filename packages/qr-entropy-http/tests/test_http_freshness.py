# SPDX-License-Identifier: Apache-2.0
"""No byte is older than the draw that returns it, whatever a service sends, and when."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from qr_entropy_http.exchange.deadline import Deadline
from qr_entropy_http.exchange.stream import DeadlineBackend, EarlyAnswerError
from qr_entropy_http.simulators import Simulator
from qr_entropy_http.source import HttpSource
from qr_sampler import EntropyUnavailableError

PATIENCE_NS = 60 * 10**9


def made_at(simulator: Simulator, data: bytes) -> int:
    """Returns when the service made *data*."""
    (made_ns,) = [each.made_ns for each in simulator.deliveries if each.data == data]
    return made_ns


@pytest.mark.parametrize("fault", ["two_answers", "early"])
def test_old_answers_serve_no_draw(
    fault: str, serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    """An answer that is there when a connection opens was made after the draw had begun."""
    simulator = serve("lfd")
    source = ask(simulator, "lfd")
    source.draw(64)
    simulator.fault = fault
    served = 0
    for _ in range(20):
        with suppress(EntropyUnavailableError):
            draw = source.draw(64)
            assert made_at(simulator, draw.data) >= draw.requested_ns
            served += 1
    assert served == 20 or fault == "early"
    assert simulator.connections == 21


def early_server(authority: Any) -> tuple[int, threading.Event]:
    """Returns the port of a server that answers whoever connects, and when it has."""
    listener = socket.create_server(("127.0.0.1", 0))
    answered = threading.Event()
    context = None if authority is None else authority.server()

    def run() -> None:
        connection, _ = listener.accept()
        # Otherwise the system keeps it back until the client has confirmed what came before.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n0")
        answered.set()
        with suppress(OSError):
            connection.recv(1)
        connection.close()
        listener.close()

    threading.Thread(target=run, daemon=True).start()
    return listener.getsockname()[1], answered


@pytest.mark.parametrize("encrypted", [False, True])
def test_an_answer_before_the_request_is_refused(encrypted: bool, authority: Any) -> None:
    port, answered = early_server(authority if encrypted else None)
    stream = DeadlineBackend(Deadline(time.monotonic_ns() + PATIENCE_NS)).connect_tcp(
        "127.0.0.1", port
    )
    if encrypted:
        trusted = ssl.create_default_context(cafile=str(authority.certificate))
        stream = stream.start_tls(trusted, "127.0.0.1")
    # On loopback what is sent has arrived.
    assert answered.wait(60)
    try:
        with pytest.raises(EarlyAnswerError):
            stream.write(b"GET / HTTP/1.1\r\n\r\n")
    finally:
        stream.close()


def test_numbers_that_are_served_again_are_left_to_the_health_tests(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    """Nothing in an answer tells that it repeats another one."""
    simulator = serve("lfd")
    source = ask(simulator, "lfd")
    first = source.get_random_bytes(1024)
    simulator.fault = "stale"
    assert source.get_random_bytes(1024) == first
