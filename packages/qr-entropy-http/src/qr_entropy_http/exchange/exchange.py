# SPDX-License-Identifier: Apache-2.0
"""Sends one request on a connection of its own, and reads one answer of bounded size."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import httpcore
import httpx

from qr_entropy_http.exchange.deadline import Deadline, DeadlineLapsedError
from qr_entropy_http.exchange.stream import DeadlineBackend, EarlyAnswerError

__all__ = ["Answer", "ExchangeError", "exchange"]

LARGEST_ERROR: Final = 4096
"""Number of bytes of an answer with another status than 200 that are read: what it says begins
there."""

OK: Final = 200

LOST: Final = (httpcore.ProtocolError, httpcore.NetworkError, httpcore.TimeoutException)
"""How a connection ends that is of no more use."""

LAPSE: Final = "no complete answer in time; find out what holds it up, or raise QR_HTTP_TIMEOUT_MS"


class ExchangeError(Exception):
    """There is no complete answer.

    Args:
        reason: What happened and what to do.
        received_bytes: Size of the body that had arrived by then.
    """

    def __init__(self, reason: str, *, received_bytes: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.received_bytes = received_bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service has answered."""

    status: int
    content_type: str
    """Media type in lower case, without parameters."""
    headers: dict[str, str]
    """By name in lower case; of a header that comes several times, all, as RFC 9110, section 5.3,
    combines them."""
    body: bytes


def exchange(
    request: httpx.Request, tls: ssl.SSLContext, deadline: Deadline, most_bytes: int
) -> Answer:
    """Returns the answer to *request*.

    The connection is opened for it and closed after it, so that nothing which a service sends
    later, or sent earlier, can be taken for another answer.

    Args:
        request: What is sent; this function adds how the answer may travel.
        tls: What is trusted.
        deadline: When all of it has to be over.
        most_bytes: Largest body that is accepted.

    Raises:
        ExchangeError: When there is no complete answer in time, or it is too large or encoded.
    """
    headers = [*request.headers.raw, (b"Accept-Encoding", b"identity"), (b"Connection", b"close")]
    with _reasons(), _connections(tls, deadline) as connections:
        answer = connections.stream(
            request.method, str(request.url), headers=headers, content=request.content
        )
        with answer as response:
            return _read(response, deadline, most_bytes)


def _connections(tls: ssl.SSLContext, deadline: Deadline) -> httpcore.ConnectionPool:
    return httpcore.ConnectionPool(
        ssl_context=tls,
        max_connections=1,
        max_keepalive_connections=0,
        network_backend=DeadlineBackend(deadline),
    )


def _read(response: httpcore.Response, deadline: Deadline, most_bytes: int) -> Answer:
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if response.status == OK and encoding != "identity":
        raise ExchangeError(f"the answer is encoded ({encoding[:40]!r}), which was not asked for")
    whole = response.status == OK
    return Answer(
        status=response.status,
        content_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
        headers=headers,
        body=_body(response, deadline, most_bytes) if whole else _beginning(response, deadline),
    )


def _body(response: httpcore.Response, deadline: Deadline, most_bytes: int) -> bytes:
    body = bytearray()
    try:
        for piece in response.iter_stream():
            body += piece
            if len(body) > most_bytes:
                raise ExchangeError(
                    f"the answer has more than the {most_bytes} bytes that were expected",
                    received_bytes=len(body),
                )
            deadline.remaining_s()
    except (httpcore.ProtocolError, httpcore.NetworkError) as error:
        raise ExchangeError(
            f"the answer broke off after {len(body)} bytes ({_words(error)})",
            received_bytes=len(body),
        ) from error
    except (DeadlineLapsedError, httpcore.TimeoutException) as error:
        raise ExchangeError(LAPSE, received_bytes=len(body)) from error
    return bytes(body)


def _beginning(response: httpcore.Response, deadline: Deadline) -> bytes:
    body = bytearray()
    # What an error says is welcome, but not needed.
    with suppress(
        httpcore.ProtocolError,
        httpcore.NetworkError,
        httpcore.TimeoutException,
        DeadlineLapsedError,
    ):
        for piece in response.iter_stream():
            body += piece
            if len(body) >= LARGEST_ERROR:
                break
            deadline.remaining_s()
    return bytes(body[:LARGEST_ERROR])


@contextmanager
def _reasons() -> Iterator[None]:
    """Turns what the transport raises into reasons.

    The only place that knows its exceptions.
    """
    try:
        yield
    except (DeadlineLapsedError, httpcore.TimeoutException) as error:
        raise ExchangeError(LAPSE) from error
    except EarlyAnswerError as error:
        raise ExchangeError("it had answered before it was asked") from error
    except httpcore.ConnectError as error:
        raise ExchangeError(_no_connection(error)) from error
    except httpcore.NetworkError as error:
        raise ExchangeError(f"the connection was lost ({_words(error)})") from error
    except httpcore.ProtocolError as error:
        raise ExchangeError(f"what it answers is not HTTP ({_words(error)})") from error


def _no_connection(error: httpcore.ConnectError) -> str:
    words = _words(error)
    if isinstance(error.__cause__ or error.__context__, ssl.SSLError):
        return (
            f"no trusted encrypted connection ({words}); check its certificate, and name the one "
            "that vouches for it in QR_HTTP_CA_FILE if it is your own"
        )
    return f"no connection ({words}); start it, or correct QR_HTTP_URL"


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:200]
