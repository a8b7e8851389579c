# SPDX-License-Identifier: Apache-2.0
"""What arrives on a connection: read as it is needed, and waited for until a deadline."""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Final

from qr_sampler_grpc.direct.endpoint import Endpoint
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
        self.pending = b""
        """Bytes that were read but not taken yet: none between two draws."""
        self._missing = 0

    @property
    def is_silent(self) -> bool:
        """Whether nothing has arrived, not even the end of the stream."""
        return not self.pending and not self._readable.poll(0)

    def leftovers(self, most: int) -> tuple[bytes, int]:
        """Takes what has arrived and not been taken, about *most* bytes of it, without waiting.

        Returns:
            The bytes, and how many of them are the rest of data that had begun to be read.
        """
        pieces, length = [self.pending], len(self.pending)
        try:
            while length < most and (some := self._socket.recv(_PIECE_BYTES, socket.MSG_DONTWAIT)):
                pieces.append(some)
                length += len(some)
        except OSError:
            # Nothing more is there, or the connection is gone.
            pass
        self.pending = b""
        return b"".join(pieces), self._missing

    def first(self, most: int, deadline: int) -> bytes:
        """Returns what has arrived of the next *most* bytes, waiting for the first of them.

        Raises:
            LinkFailure: When nothing comes in time.
        """
        if deadline - time.monotonic_ns() > _PATIENCE_NS:
            try:
                some = self._socket.recv(most)
            except (BlockingIOError, ConnectionResetError):
                some = b""
            if some:
                return some
        # Waits exactly until the deadline, and tells a closed connection from a slow one.
        return self._some(most, deadline, "where an answer was due")

    def fill(self, need: int, deadline: int) -> None:
        """Reads until *need* bytes are pending, and none beyond them.

        Raises:
            LinkFailure: When they do not come in time.
        """
        while (missing := need - len(self.pending)) > 0:
            self.pending += self._some(missing, deadline, "where an answer was due")

    def data(self, before: int, size: int, deadline: int) -> bytes:
        """Takes *before* pending bytes and the *size* bytes behind them, and returns these.

        What is pending beyond them is kept.

        Raises:
            LinkFailure: When they do not come in time; counts those that came.
        """
        pending, end = self.pending, before + size
        self.pending = pending[end:]
        first = pending[before:end] or self._straight(size, deadline)
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

    def _rest(self, first: bytes, size: int, deadline: int) -> bytes:
        pieces, missing = [first], size - len(first)
        self._missing = missing
        try:
            while missing:
                most = min(missing, _PIECE_BYTES)
                pieces.append(self._some(most, deadline, "within an answer"))
                missing -= len(pieces[-1])
                if missing and time.monotonic_ns() >= deadline:
                    raise self._endpoint.lapsed()
        except LinkFailure as error:
            error.dropped_bytes = size - missing
            self._missing = missing
            raise
        self._missing = 0
        return b"".join(pieces)

    def _some(self, most: int, deadline: int, where: str) -> bytes:
        while True:
            try:
                some = self._socket.recv(most, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait(deadline)
                continue
            except ConnectionResetError:
                some = b""
            if not some:
                raise self._endpoint.lost(f"the connection ended {where}")
            return some

    def _wait(self, deadline: int) -> None:
        remaining_ns = deadline - time.monotonic_ns()
        if remaining_ns <= 0 or not self._readable.poll(remaining_ns / _NS_PER_MS):
            raise self._endpoint.lapsed()
