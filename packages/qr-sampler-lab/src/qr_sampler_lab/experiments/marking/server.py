# SPDX-License-Identifier: Apache-2.0
"""The server: a thread for each of a few connections, and one request in each."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any, Final

from qr_sampler.errors import ConfigError
from qr_sampler_lab.experiments.marking.handler import MarkHandler
from qr_sampler_lab.experiments.marking.key import MarkKey
from qr_sampler_lab.experiments.marking.page import Page
from qr_sampler_lab.experiments.marking.place import Place, check_exposure
from qr_sampler_lab.experiments.marking.writer import MarkWriter

__all__ = ["MOST_CONNECTIONS", "REQUEST_TIMEOUT_S", "MarkServer", "serving"]

MOST_CONNECTIONS: Final = 16
"""Most connections at once; browsers open some that they do not use."""

REQUEST_TIMEOUT_S: Final = 5.0
"""Longest time for a request to come in."""


class MarkServer(ThreadingHTTPServer):
    """Listens for marks; :func:`serving` runs it.

    Args:
        place: Where it listens.
        writer: Writes the marks.
        page: What it serves.
        key: What every mark must carry.
        tls: What connections are encrypted with.
        request_timeout_s: Longest time for a handshake, then for a request to come in, and for
            its answer.

    Raises:
        ConfigError: When *place* is not safe, or cannot be listened at.
    """

    # The threads are waited for at the end: what they write is written whole.
    daemon_threads = False
    block_on_close = True
    # With it two servers could listen on one port, each for half of the marks.
    allow_reuse_port = False
    # Connections that come at once wait until they are accepted.
    request_queue_size = 2 * MOST_CONNECTIONS

    def __init__(
        self,
        place: Place,
        writer: MarkWriter,
        page: Page,
        *,
        key: MarkKey | None = None,
        tls: ssl.SSLContext | None = None,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        check_exposure(place, encrypted=tls is not None, has_key=key is not None)
        self.writer, self.page, self.key, self.tls = writer, page, key, tls
        self.request_timeout_s = request_timeout_s
        self.address_family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        try:
            super().__init__((place.host, place.port), MarkHandler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen at {place}: {error.strerror}; choose another address, or stop what "
                "is there"
            ) from error

    @property
    def url(self) -> str:
        """Where the page is; with the name of this machine if it listens on all interfaces."""
        host, port = self.server_address[:2]
        everywhere = ipaddress.ip_address(str(host)).is_unspecified
        name = socket.gethostname() if everywhere else str(host)
        return f"{'https' if self.tls else 'http'}://{Place(name, port)}/"

    def server_bind(self) -> None:
        """Takes the address. The name of the machine, which this may ask a network, is not used."""
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accepts a connection; its handshake is left to its thread."""
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Has a thread handle a connection, unless all are busy."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._open.add(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # There is no further thread.
            self._leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handles a connection, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(request)

    def _leave(self, request: socket.socket) -> None:
        with self._lock:
            self._open.discard(request)
        self._free.release()

    def stop(self) -> None:
        """Accepts nothing more, and returns when what has come whole is answered.

        May be called more than once, while or after it serves.
        """
        self.shutdown()
        self._hang_up()
        self.server_close()

    def _hang_up(self) -> None:
        """Ends waiting for requests that have not come."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    # That of an encrypted connection would forget the encryption.
                    socket.socket.shutdown(connection, socket.SHUT_RD)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Passes over connections that break, which is the business of clients."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(server: MarkServer) -> Iterator[MarkServer]:
    """Runs *server* until the block ends; marks that were sent whole are written before that."""
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="marks")
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
