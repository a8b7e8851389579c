# SPDX-License-Identifier: Apache-2.0
"""A connection whose every step ends with the draw, and which carries one request."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final

import httpcore

from qr_entropy_http.exchange.deadline import Deadline

__all__ = ["DeadlineBackend", "DeadlineStream", "EarlyAnswerError"]

MOST_TICKETS: Final = 16
"""Number of records of TLS itself, such as session tickets, that are taken in before a request. A
connection that is lost looks like more of them, which the next step finds out."""


class EarlyAnswerError(Exception):
    """The far side had sent something before it was asked."""


class DeadlineStream(httpcore.NetworkStream):
    """Reads and writes for as long as the draw may take, whatever time a single step is allowed.

    Before the first byte of the request leaves, it makes sure that no answer is there already.

    Args:
        stream: The connection.
        deadline: When the draw ends.
    """

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline
        self._asked = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Returns what has arrived, at most *max_bytes*.

        Raises:
            DeadlineLapsedError: When the time is used up.
            httpcore.ReadTimeout: When it has been used up by waiting.
            httpcore.ReadError: When the connection has failed.
        """
        return self._stream.read(max_bytes, timeout=self._deadline.remaining_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends *buffer*.

        Raises:
            EarlyAnswerError: When something had arrived before the first byte left.
            DeadlineLapsedError: When the time is used up.
            httpcore.WriteTimeout: When it has been used up by waiting.
            httpcore.WriteError: When the connection has failed.
        """
        if not self._asked:
            self._refuse_early_bytes()
            self._asked = True
        self._stream.write(buffer, timeout=self._deadline.remaining_s())

    def close(self) -> None:
        """Ends the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Returns the same connection, encrypted.

        Raises:
            DeadlineLapsedError: When the time is used up.
            httpcore.ConnectTimeout: When it has been used up by waiting.
            httpcore.ConnectError: When the certificate is not accepted, or the connection failed.
        """
        stream = self._stream.start_tls(
            ssl_context, server_hostname, timeout=self._deadline.remaining_s()
        )
        return DeadlineStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Returns what is known of the connection below."""
        return self._stream.get_extra_info(info)

    def _refuse_early_bytes(self) -> None:
        for _ in range(MOST_TICKETS):
            # Without waiting. Over TLS this takes in what the protocol itself sends, one at a time.
            try:
                if self._stream.read(1, timeout=0.0):
                    raise EarlyAnswerError
            except httpcore.ReadError:
                pass
            if not self._stream.get_extra_info("is_readable"):
                return


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections for one draw.

    The addresses of a host share the time that is left. Looking up a name is up to the system and
    may take longer than the draw.

    Args:
        deadline: When the draw ends.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Returns a connection to the first address of *host* that accepts one.

        Raises:
            DeadlineLapsedError: When the time is used up.
            httpcore.ConnectError: When no address accepts one, or the name is unknown.
            httpcore.ConnectTimeout: When the last one has used up its time.
        """
        addresses = _addresses(host, port)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for index, address in enumerate(addresses):
            share_s = self._deadline.remaining_s() / (len(addresses) - index)
            try:
                stream = self._backend.connect_tcp(
                    address, port, share_s, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return DeadlineStream(stream, self._deadline)
        raise failure


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host}: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
