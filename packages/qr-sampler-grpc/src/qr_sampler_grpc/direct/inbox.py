# SPDX-License-Identifier: Apache-2.0
"""What arrives on a connection: read as it is needed, and waited for until a deadline."""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Final

from qr_sampler_grpc.direct.endpoint import Endpoint
from qr_sampler_grpc.direct.frame import MAX_ANSWER_PREFIX_BYTES
from qr_sampler_grpc.link import LinkFailure

__all__ = ["Inbox"]

_NS_PER_MS: Final = 1_000_000
_SLICE_MS: Final = 5
_PATIENCE_NS: Final = 20 * _NS_PER_MS
"""A read that waits by itself costs a system call less than one that polls first, but the kernel
rounds its time limit up by as much as a few ticks of its clock: it is used where that much and more
is left to the deadline."""
_PIECE_BYTES: Final = 256 * 1024
"""More than a socket holds at once."""


class Inbox:
    """Reads from a connected socket.

    Args:
        endpoint: Makes the failures.
        connection: Where to read from; reads that wait are cut off after a while from now on.
    """

    def __init__(self, endpoint: Endpoint, connection: socket.socket) -> None:
        self._endpoint = endpoint
        self._socket = connection
        limit = struct.pack("ll", 0, _SLICE_MS * 1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self.buffer = bytearray(MAX_ANSWER_PREFIX_BYTES)
        """What comes before the data of an answer."""
        self.filled = 0
        """How many bytes of the buffer have been read: none between two draws."""

    def fill(self, need: int, want: int, deadline: int) -> None:
        """Reads until the buffer holds *need* bytes, and up to *want* if they are there.

        Raises:
            LinkFailure: When they do not come in time.
        """
        while (filled := self.filled) < need:
            room = memoryview(self.buffer)[filled:want] if filled else self.buffer
            patient = not filled and deadline - time.monotonic_ns() > _PATIENCE_NS
            try:
                count = self._socket.recv_into(
                    room, want - filled, 0 if patient else socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                self._wait(deadline)
                continue
            except ConnectionResetError:
                count = 0
            if not count:
                raise self._endpoint.lost("the connection ended where an answer was due")
            self.filled = filled + count

    def data(self, before: int, size: int, deadline: int) -> bytes:
        """Returns the *size* bytes that follow the first *before* ones of the buffer.

        What the buffer holds beyond them is kept.

        Raises:
            LinkFailure: When they do not come in time; counts those that came.
        """
        if self.filled == before:
            self.filled = 0
            first = self._straight(size, deadline)
        else:
            first = self._taken(before, size)
        return first if len(first) == size else self._rest(first, size, deadline)

    def _straight(self, size: int, deadline: int) -> bytes:
        """Returns what comes with one read, which needs no copy if it is all of it."""
        flags = socket.MSG_DONTWAIT
        # More than a socket holds comes bit by bit while it is read.
        if size > _PIECE_BYTES and deadline - time.monotonic_ns() > _PATIENCE_NS:
            flags = socket.MSG_WAITALL
        try:
            return self._socket.recv(size, flags)
        except (BlockingIOError, ConnectionResetError):
            return b""

    def _taken(self, before: int, size: int) -> bytes:
        """Returns what the buffer holds of the data, and keeps what is behind it."""
        after = min(before + size, self.filled)
        first = bytes(self.buffer[before:after])
        rest = self.buffer[after : self.filled]
        self.buffer[: len(rest)] = rest
        self.filled = len(rest)
        return first

    def _rest(self, first: bytes, size: int, deadline: int) -> bytes:
        pieces, missing = [first], size - len(first)
        try:
            while missing:
                pieces.append(self._piece(min(missing, _PIECE_BYTES), deadline))
                missing -= len(pieces[-1])
                if missing and time.monotonic_ns() >= deadline:
                    raise self._endpoint.lapsed()
        except LinkFailure as error:
            error.dropped_bytes = size - missing
            raise
        return b"".join(pieces)

    def _piece(self, most: int, deadline: int) -> bytes:
        while True:
            try:
                piece = self._socket.recv(most, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait(deadline)
                continue
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise self._endpoint.lost("the connection ended within an answer")
            return piece

    def _wait(self, deadline: int) -> None:
        remaining_ns = deadline - time.monotonic_ns()
        if remaining_ns <= 0 or not self._readable.poll(remaining_ns / _NS_PER_MS):
            raise self._endpoint.lapsed()
