# SPDX-License-Identifier: Apache-2.0
"""How a simulated service misbehaves."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Final

from qr_entropy_http.simulators.protocols import Protocol, Reply

__all__ = ["FAULTS", "ON_CONNECTION", "REPLIES", "WRITERS"]

SLOW_S: Final = 0.02
"""Pause between two bytes of a service that sends one at a time."""

HUGE_PIECE: Final = b"0" * 65_536

Altered = Callable[[Reply, Protocol], Reply]
Written = Callable[[socket.socket, bytes, threading.Event], None]


def _shorter(reply: Reply, protocol: Protocol) -> Reply:
    """The numbers are fewer than asked for."""
    if reply.content_type != "application/json":
        return _with_body(reply, reply.body[:-1])
    return _with_body(reply, json.dumps(_cut(json.loads(reply.body))).encode())


def _cut(document: object) -> object:
    if isinstance(document, dict):
        return {name: _cut(value) for name, value in document.items()}
    if isinstance(document, list):
        return [_cut(value) for value in document[:-1]]
    return document[:-2] if isinstance(document, str) and len(document) > 20 else document


def _out_of_range(reply: Reply, protocol: Protocol) -> Reply:
    """A number is none of those that the type has."""
    if reply.content_type != "application/json":
        return _with_body(reply, reply.body + b"x")
    return _with_body(reply, json.dumps(_spoilt(json.loads(reply.body))).encode())


def _spoilt(document: object) -> object:
    if isinstance(document, dict):
        return {
            name: "300" if name == "decimal" else _spoilt(value) for name, value in document.items()
        }
    if isinstance(document, list):
        return [_spoilt(value) for value in document]
    if type(document) is int:
        return 70_000
    return "zz" + document[2:] if isinstance(document, str) and len(document) > 20 else document


def _twice(reply: Reply, protocol: Protocol) -> Reply:
    """The object has every name twice."""
    inside = reply.body.strip()[1:-1]
    return _with_body(reply, b"{" + inside + b"," + inside + b"}")


def _with_body(reply: Reply, body: bytes) -> Reply:
    return Reply(reply.status, body, reply.content_type, reply.headers)


REPLIES: Final[Mapping[str, Altered]] = {
    "quota": lambda reply, protocol: protocol.used_up,
    "429": lambda reply, protocol: Reply(429, b'{"message":"Too Many Requests"}'),
    "503": lambda reply, protocol: Reply(503, b"maintenance", "text/plain"),
    "expired": lambda reply, protocol: protocol.no_key,
    "empty": lambda reply, protocol: Reply(404, b'{"detail":{},"error":"Entropy Pool empty"}'),
    "redirect": lambda reply, protocol: Reply(
        302, b"", headers={"Location": "http://127.0.0.1:9/elsewhere"}
    ),
    "wrong_type": lambda reply, protocol: Reply(200, reply.body, "text/html"),
    "gzip": lambda reply, protocol: Reply(
        200, gzip.compress(reply.body), reply.content_type, {"Content-Encoding": "gzip"}
    ),
    "too_few": _shorter,
    "out_of_range": _out_of_range,
    "twice": _twice,
    "nested": lambda reply, protocol: Reply(200, b"[" * 10_000),
    "garbage": lambda reply, protocol: _with_body(reply, bytes(range(256))),
}
"""Other answers than the right one."""


def _truncated(connection: socket.socket, answer: bytes, ended: threading.Event) -> None:
    connection.sendall(answer[: len(answer) // 2])


def _dripping(connection: socket.socket, answer: bytes, ended: threading.Event) -> None:
    head, blank, body = answer.partition(b"\r\n\r\n")
    connection.sendall(head + blank)
    _byte_by_byte(connection, body, ended)


def _slow_headers(connection: socket.socket, answer: bytes, ended: threading.Event) -> None:
    _byte_by_byte(connection, answer, ended)


def _byte_by_byte(connection: socket.socket, data: bytes, ended: threading.Event) -> None:
    for byte in data:
        connection.sendall(bytes([byte]))
        if ended.wait(SLOW_S):
            return


def _huge(connection: socket.socket, answer: bytes, ended: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while not ended.is_set():
        connection.sendall(HUGE_PIECE)


def _not_http(connection: socket.socket, answer: bytes, ended: threading.Event) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")


def _silent(connection: socket.socket, answer: bytes, ended: threading.Event) -> None:
    ended.wait()


def _then_another(connection: socket.socket, answer: bytes, ended: threading.Event) -> None:
    connection.sendall(answer + answer)


WRITERS: Final[Mapping[str, Written]] = {
    "truncated": _truncated,
    "drip": _dripping,
    "slow_headers": _slow_headers,
    "huge": _huge,
    "not_http": _not_http,
    "silence": _silent,
    "two_answers": _then_another,
}
"""Other ways of sending an answer."""

ON_CONNECTION: Final = ("early", "slow_tls", "refused")
"""What happens before a request is read: an answer with old numbers is there already, the handshake
does not come, or the connection is closed."""

FAULTS: Final = tuple(sorted([*REPLIES, *WRITERS, *ON_CONNECTION, "stale"]))
"""Their names. ``stale`` serves the first numbers again."""
