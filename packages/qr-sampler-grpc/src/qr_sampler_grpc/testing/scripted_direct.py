# SPDX-License-Identifier: Apache-2.0
"""A server of the direct protocol whose every answer a function makes."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from qr_sampler_grpc.direct.frame import VERSION, encode_answer
from qr_sampler_grpc.testing.patience import PATIENCE_S

__all__ = [
    "DirectBehaviour",
    "DirectRequest",
    "ScriptedDirectServer",
    "direct_answer",
    "hang",
    "right",
    "sends",
    "tagged",
]


class DirectRequest(NamedTuple):
    """A request of the direct protocol as it was read."""

    number: int
    size: int
    commitment: bytes = b""
    timeout_us: int = 0
    version: int = VERSION


DirectBehaviour: TypeAlias = Callable[[socket.socket, DirectRequest, int], object]
"""Answers a request, the n-th of the server; ``False`` ends the connection."""


class ScriptedDirectServer:
    """Reads requests by the protocol and leaves the answers to a function.

    Args:
        path: Where the socket is made.
        behaviour: Makes the answers; may be replaced later.
    """

    def __init__(self, path: Path, behaviour: DirectBehaviour) -> None:
        self.behaviour = behaviour
        self.requests: list[DirectRequest] = []
        self.arrived_ns: list[int] = []
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(128)
        self._path = path
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                self._ends.append(end)
                self._start(self._serve, end)

    def _serve(self, end: socket.socket) -> None:
        with suppress(OSError), end:
            while head := end.recv(24, socket.MSG_WAITALL):
                length, number, size, timeout_us = struct.unpack(">HqII", head[6:])
                commitment = end.recv(length, socket.MSG_WAITALL) if length else b""
                self.arrived_ns.append(time.monotonic_ns())
                request = DirectRequest(number, size, commitment, timeout_us, head[4])
                self.requests.append(request)
                if self.behaviour(end, request, len(self.requests)) is False:
                    return

    def stop(self) -> None:
        """Ends the server and its connections."""
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for thread in self._threads:
            thread.join(PATIENCE_S)
            if thread.is_alive():
                raise TimeoutError("a thread of the server does not end")


def tagged(number: int, size: int) -> bytes:
    """Returns bytes that tell which request they answer."""
    return ((number % 2**32).to_bytes(4, "big") * (size // 4 + 1))[:size]


def direct_answer(request: DirectRequest, **changes: Any) -> bytes:
    """Returns the right answer to a request, but for *changes*."""
    data: bytes = changes.pop("data", tagged(request.number, request.size))
    fields: dict[str, Any] = {
        "device_id": b"scripted",
        "generation_timestamp_ns": 5,
        "commitment": request.commitment,
        "data_length": len(data),
        "version": request.version,
        **changes,
    }
    head: bytes = encode_answer(fields.pop("sequence_id", request.number), **fields)
    return head + data


def right(end: socket.socket, request: DirectRequest, count: int) -> object:
    """Sends the right answer; a :data:`DirectBehaviour`."""
    end.sendall(direct_answer(request))
    return True


def hang(end: socket.socket, request: DirectRequest, count: int) -> object:
    """Sends nothing until the client is gone; a :data:`DirectBehaviour`."""
    return bool(end.recv(1))


def sends(make: Callable[[DirectRequest], bytes], *, then_close: bool = False) -> DirectBehaviour:
    """Returns a behaviour that sends what *make* returns."""

    def behaviour(end: socket.socket, request: DirectRequest, count: int) -> object:
        end.sendall(make(request))
        return not then_close

    return behaviour
