# SPDX-License-Identifier: Apache-2.0
"""The server's end of one connection: reads requests, has them measured, sends the answers."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from qr_sampler_grpc.device import Device, Measured, MeasurementRefusedError, Refusal
from qr_sampler_grpc.direct.frame import (
    MAX_REQUEST_BYTES,
    REQUEST_HEADER_BYTES,
    MalformedFrameError,
    Request,
    Status,
    decode_request_header,
    encode_answer,
)

__all__ = ["Session", "send_refusal"]

_METHOD: Final = "direct"
_US_PER_S: Final = 1e6
_SEND_TIMEOUT_S: Final = 30
"""How long a client may leave an answer unread before its connection is closed."""
_JUST_NOW_NS: Final = 1_000_000
"""A client that was there a moment ago is taken to be there still; asking costs a system call."""

_STATUSES: Final = {
    Refusal.MALFORMED: Status.MALFORMED,
    Refusal.EXHAUSTED: Status.EXHAUSTED,
    Refusal.TOO_LATE: Status.TOO_LATE,
    # It goes to nobody.
    Refusal.ABANDONED: Status.TOO_LATE,
    Refusal.UNAVAILABLE: Status.UNAVAILABLE,
    Refusal.DEFECT: Status.DEFECT,
}
_NAMES: Final = tuple(status.name for status in Status)


class Session:
    """One connection of a client; runs in a thread of its own.

    Args:
        connection: The accepted socket, blocking. Whoever makes a session closes it.
        device: What measures.
        account: Whose quota the requests count against.
        is_stopping: Whether the server wants to end.
    """

    def __init__(
        self,
        connection: socket.socket,
        device: Device,
        account: str,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._socket = connection
        self._device = device
        self._device_id = device.device_id.encode()
        self._account = account
        self._is_stopping = is_stopping
        self._pending = b""
        self._arrived_ns = 0
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_TIMEOUT_S, 0)
        )

    def run(self) -> None:
        """Answers requests until either side has had enough."""
        # Whatever ends a connection, from a reset to a client that reads nothing, ends it here.
        with suppress(OSError):
            while self._serve_one():
                pass

    def _serve_one(self) -> bool:
        try:
            request = self._request()
        except MalformedFrameError as error:
            send_refusal(self._socket, Status.UNREADABLE, str(error))
            return False
        if request is None:
            return False
        status = self._answer(*request)
        # The client has its answer by now.
        self._device.note_answer(_METHOD, _NAMES[status])
        return True

    def _request(self) -> tuple[Request, bytes] | None:
        """Returns the next request with its commitment, or ``None`` when there is none to come."""
        frame = self._pending
        if frame:
            # What has been waiting since who knows when was not sent just now.
            self._arrived_ns = 0
        else:
            frame = self._socket.recv(MAX_REQUEST_BYTES)
            self._arrived_ns = time.monotonic_ns()
        if len(frame) < REQUEST_HEADER_BYTES and not (frame := self._all(frame, 0)):
            return None
        header = decode_request_header(frame)
        length = header.commitment_length
        end = REQUEST_HEADER_BYTES + length
        if len(frame) < end and not (frame := self._all(frame, length)):
            return None
        self._pending = frame[end:]
        return header, frame[REQUEST_HEADER_BYTES:end]

    def _all(self, frame: bytes, commitment_length: int) -> bytes:
        """Reads on until *frame* holds a header and as much; empty when the client has closed."""
        while len(frame) < REQUEST_HEADER_BYTES + commitment_length:
            more = self._socket.recv(MAX_REQUEST_BYTES) if frame else b""
            if not more:
                return b""
            frame += more
        return frame

    def _answer(self, request: Request, commitment: bytes) -> Status:
        number = request.sequence_id
        try:
            measured = self._measured(request, commitment)
            signature = self._device.sign(measured, sequence_id=number, commitment=commitment)
        except MeasurementRefusedError as error:
            status = _STATUSES[error.kind]
            self._socket.sendall(encode_answer(number, status, words=error.words))
            return status
        head = encode_answer(
            number,
            generation_timestamp_ns=measured.timestamp_ns,
            device_id=self._device_id,
            commitment=commitment,
            signature=signature,
            data_length=len(measured.data),
        )
        self._send(head, measured.data)
        return Status.OK

    def _measured(self, request: Request, commitment: bytes) -> Measured:
        if self._is_stopping():
            raise MeasurementRefusedError(Refusal.UNAVAILABLE, "the server is stopping")
        return self._device.measure(
            request.bytes_needed,
            request.timeout_us / _US_PER_S if request.timeout_us else None,
            commitment=commitment,
            account=self._account,
            is_wanted=self._is_wanted,
        )

    def _is_wanted(self) -> bool:
        if time.monotonic_ns() - self._arrived_ns < _JUST_NOW_NS:
            return True
        poll = select.poll()
        poll.register(self._socket, 0)
        return not poll.poll(0)

    def _send(self, head: bytes, data: bytes) -> None:
        sent = self._socket.sendmsg((head, data))
        if sent < len(head):
            self._socket.sendall(head[sent:])
            sent = len(head)
        if sent < len(head) + len(data):
            self._socket.sendall(memoryview(data)[sent - len(head) :])


def send_refusal(connection: socket.socket, status: Status, words: str) -> None:
    """Says that a connection is of no use, if the client is there to hear it."""
    with suppress(OSError):
        connection.send(encode_answer(0, status, words=words))
