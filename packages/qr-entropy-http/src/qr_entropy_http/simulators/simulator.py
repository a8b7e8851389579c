# SPDX-License-Identifier: Apache-2.0
"""A service on loopback that counts what it is asked for, and misbehaves when told to."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from qr_entropy_http.simulators.faults import FAULTS, REPLIES, WRITERS
from qr_entropy_http.simulators.protocols import PROTOCOLS, Question, Reply

__all__ = ["Delivery", "Simulator"]

TOO_MANY: Final = 429
"""The status of RFC 6585 for a client that asks too often."""

POLL_S: Final = 0.01
"""How often it looks whether it is to end."""

LARGEST_BODY: Final = 65_536
"""Number of bytes of a request that are read."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Random bytes that were made for a request."""

    made_ns: int
    """``time.monotonic_ns()`` just before they were made."""
    data: bytes


class Simulator:
    """Serves one protocol until it is closed.

    Threads may change its attributes at any time.

    Args:
        preset: Which service it stands for, a key of
            :data:`~qr_entropy_http.simulators.protocols.PROTOCOLS`.
        key: API key that it asks for, where the service takes one.
        port: Where it listens on 127.0.0.1; 0 for a free one.
        tls: What it encrypts with; ``None`` for plain HTTP.
        generate: Makes random bytes.

    Raises:
        KeyError: When there is no such service.
        OSError: When the port is in use.

    Examples:
        >>> with Simulator("lfd") as service:
        ...     service.url.startswith("http://127.0.0.1:"), service.requests
        (True, 0)
    """

    def __init__(
        self,
        preset: str,
        *,
        key: str = "",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        generate: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.protocol = PROTOCOLS[preset]
        self.key = key
        self.fault = ""
        """What it does wrong, one of :data:`~qr_entropy_http.simulators.faults.FAULTS`; empty for
        nothing."""
        self.fault_after = 0
        """How many requests it serves before that."""
        self.retry_after_s = 7
        """For how long it asks to be left alone with the status 429."""
        self.connections = 0
        """How often somebody has connected."""
        self.requests = 0
        """How many requests have arrived."""
        self.deliveries: list[Delivery] = []
        """What was made for them."""
        self.questions: list[Question] = []
        """What they were."""
        self.ended = threading.Event()
        """Ends what takes long."""
        self._generate = generate
        self._tls = tls
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,))
        self._thread.daemon = True
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def spent_bytes(self) -> int:
        """How many random bytes were made for requests."""
        return sum(len(delivery.data) for delivery in self.deliveries)

    def close(self) -> None:
        """Ends it and its connections."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Simulator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fault_now(self) -> str:
        """Returns what goes wrong with the next request."""
        if self.fault and self.fault not in FAULTS:
            raise ValueError(f"no such fault: {self.fault!r}")
        return self.fault if self.requests >= self.fault_after else ""

    def connected(self, connection: socket.socket) -> socket.socket | None:
        """Returns a new connection as it is used, ``None`` if it is not."""
        with self._lock:
            self.connections += 1
        fault = self.fault_now()
        if fault == "refused":
            return None
        if fault == "slow_tls":
            self.ended.wait()
            return None
        if self._tls is not None:
            with suppress(OSError):
                connection = self._tls.wrap_socket(connection, server_side=True)
        if fault == "early":
            with suppress(OSError):
                connection.sendall(wire_form(self._old_reply()))
        return connection

    def reply_to(self, question: Question) -> Reply:
        """Returns the answer to a request, and counts it."""
        fault = self.fault_now()
        with self._lock:
            self.requests += 1
            self.questions.append(question)
        if not self._is_known(question):
            return self.protocol.no_key
        if (question.method, question.path) != (self.protocol.method, self.protocol.path):
            return Reply(404, b"not found", "text/plain")
        if fault in ("quota", "429", "503", "expired", "redirect", "empty"):
            # Nothing is measured for a request that is refused.
            return self._patient(REPLIES[fault](Reply(200, b""), self.protocol))
        reply = self.protocol.answer(question, self._old if fault == "stale" else self._fresh)
        return REPLIES[fault](reply, self.protocol) if fault in REPLIES else reply

    def send(self, connection: socket.socket, reply: Reply, fault: str) -> None:
        """Sends an answer, well or badly."""
        data = wire_form(reply)
        with suppress(OSError):
            if fault in WRITERS:
                WRITERS[fault](connection, data, self.ended)
            else:
                connection.sendall(data)

    def _patient(self, reply: Reply) -> Reply:
        if reply.status != TOO_MANY:
            return reply
        wait = {"Retry-After": str(self.retry_after_s)}
        return Reply(reply.status, reply.body, reply.content_type, {**reply.headers, **wait})

    def _is_known(self, question: Question) -> bool:
        protocol = self.protocol
        if not protocol.key_header:
            return True
        return question.headers.get(protocol.key_header) == protocol.key_prefix + self.key

    def _fresh(self, count: int) -> bytes:
        made_ns = time.monotonic_ns()
        data = self._generate(count)
        with self._lock:
            self.deliveries.append(Delivery(made_ns, data))
        return data

    def _old(self, count: int) -> bytes:
        if not self.deliveries:
            return self._fresh(count)
        first = self.deliveries[0].data
        return (first * (count // len(first) + 1))[:count]

    def _old_reply(self) -> Reply:
        """Returns the answer to the latest question, made before the next one was asked."""
        if not self.questions:
            return Reply(200, b"{}")
        return self.protocol.answer(self.questions[-1], self._fresh)


def wire_form(reply: Reply) -> bytes:
    """Returns *reply* as HTTP/1.1 writes it."""
    headers = {
        "Content-Type": reply.content_type,
        "Content-Length": str(len(reply.body)),
        **reply.headers,
    }
    lines = [f"HTTP/1.1 {reply.status} Simulated"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + reply.body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Threads that wait for a fault to end are ended by it, not waited for.
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients that leave are what this is for."""


def _handler_of(simulator: Simulator) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connection = simulator.connected(self.request)
            if connection is None:
                raise ConnectionAbortedError
            self.request = connection
            super().setup()

        def finish(self) -> None:
            with suppress(OSError):
                super().finish()
            # The server's own clean-up knows nothing of the layer of encryption.
            with suppress(OSError):
                self.request.close()

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def log_message(self, *arguments: Any) -> None:
            return

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            length = self.headers.get("Content-Length", "0")
            size = min(int(length), LARGEST_BODY) if length.isdigit() else 0
            question = Question(
                method=self.command,
                path=parts.path,
                query=dict(parse_qsl(parts.query)),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(size),
            )
            fault = simulator.fault_now()
            reply = simulator.reply_to(question)
            self.close_connection = fault in WRITERS or "close" in question.headers.get(
                "connection", ""
            )
            simulator.send(self.request, reply, fault)

    return Handler
