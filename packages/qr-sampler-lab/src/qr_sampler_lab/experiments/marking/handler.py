# SPDX-License-Identifier: Apache-2.0
"""Answers one request of one connection."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final

from qr_sampler_lab.experiments.marking.bounds import BoundedReader, TooMuchError
from qr_sampler_lab.experiments.marking.requests import (
    RefusedError,
    body_length,
    check_host,
    check_sender,
    mark_text,
)

if TYPE_CHECKING:
    from qr_sampler_lab.experiments.marking.server import MarkServer

__all__ = ["LARGEST_REQUEST", "MarkHandler"]

LARGEST_REQUEST: Final = 2**15
"""Most bytes of a request, headers and body together."""

_LARGEST_REST: Final = 2**17
_REST_TIMEOUT_S: Final = 1.0

_NOTHING: Final[Mapping[str, str]] = {}
_TEXT: Final = "text/plain; charset=utf-8"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}
_MORE: Final[Mapping[HTTPStatus, Mapping[str, str]]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "1"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}


class MarkHandler(BaseHTTPRequestHandler):
    """``GET /`` is the page, ``POST /mark`` writes a mark, and nothing else is here."""

    protocol_version = "HTTP/1.1"
    # What names no version gets headers, too.
    default_request_version = "HTTP/1.0"
    # What an answer needs to know of a request, also before there is one.
    request_version = "HTTP/1.1"
    requestline = command = ""
    server: MarkServer

    def setup(self) -> None:
        """Encrypts the connection, if that is asked for, and bounds what is read of it.

        The handshake happens here, in the thread of the connection: others are accepted meanwhile.
        """
        super().setup()
        timeout_s = self.server.request_timeout_s
        self.connection.settimeout(timeout_s)
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.do_handshake()
        self.rfile.close()
        bounded = BoundedReader(self.connection, limit=LARGEST_REQUEST, timeout_s=timeout_s)
        self.rfile = io.BufferedReader(bounded, 4096)

    def handle(self) -> None:
        """Answers one request."""
        try:
            self.handle_one_request()
        except TooMuchError:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            self._drain()

    def do_GET(self) -> None:
        """Serves the page."""
        try:
            check_host(self.headers, encrypted=self._is_encrypted)
            self._check_path("/")
        except RefusedError as refused:
            self._refuse(refused)
            return
        page = self.server.page
        policy = {"Content-Security-Policy": page.policy}
        self._answer(HTTPStatus.OK, page.html, "text/html; charset=utf-8", policy)

    def do_HEAD(self) -> None:
        """Tells of the page."""
        self.do_GET()

    def do_POST(self) -> None:
        """Writes a mark."""
        try:
            entry = self.server.writer.write(self._text(), self.client_address[0])
        except RefusedError as refused:
            self._refuse(refused)
            self._drain()
            return
        told = json.dumps({"n": entry.n, "head": entry.head})
        self._answer(HTTPStatus.CREATED, f"{told}\n".encode(), "application/json")

    def _text(self) -> str:
        check_host(self.headers, encrypted=self._is_encrypted)
        self._check_path("/mark")
        check_sender(self.headers, encrypted=self._is_encrypted, key=self.server.key)
        length = body_length(self.headers)
        body = self.rfile.read(length)
        if len(body) < length:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The body is shorter than it said.")
        return mark_text(self.headers, body)

    @property
    def _is_encrypted(self) -> bool:
        return isinstance(self.connection, ssl.SSLSocket)

    def _check_path(self, path: str) -> None:
        if self.path != path:
            raise RefusedError(HTTPStatus.NOT_FOUND, "There is GET / and POST /mark only.")

    def _refuse(self, refused: RefusedError) -> None:
        more = _MORE.get(refused.status, {})
        self._answer(refused.status, f"{refused.reason}\n".encode(), _TEXT, more)

    def _drain(self) -> None:
        """Reads what is still to come: to close before that could take the answer back."""
        rest = BoundedReader(self.connection, limit=_LARGEST_REST, timeout_s=_REST_TIMEOUT_S)
        with contextlib.suppress(OSError):
            # That of an encrypted connection would forget the encryption.
            socket.socket.shutdown(self.connection, socket.SHUT_WR)
            while rest.read(4096):
                pass

    def _answer(
        self, status: HTTPStatus, body: bytes, kind: str, more: Mapping[str, str] = _NOTHING
    ) -> None:
        # What is left of the time for reading may be next to nothing.
        self.connection.settimeout(self.server.request_timeout_s)
        self.send_response(status)
        for name, value in {**_HEADERS, **more}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuses what is no request, in plain text."""
        status = HTTPStatus(code)
        self._answer(status, f"{status.phrase}.\n".encode(), _TEXT)

    def version_string(self) -> str:
        """Names the program, not what it is made of."""
        return "qr-sampler"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Logs nothing: whoever can connect could fill a disk. Marks are told of by the writer."""
