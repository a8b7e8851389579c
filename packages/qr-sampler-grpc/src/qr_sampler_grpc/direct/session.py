# SPDX-License-Identifier: Apache-2.0
"""The server's end of one connection: reads requests, has them measured, and sends the answers."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from qr_sampler_grpc.device import Device, Measured, MeasurementRefusedError, Refusal
from qr_sampler_grpc.device.answer_memory import CrowdedError, reading_time_s
from qr_sampler_grpc.direct.frame import (
    MAX_REQUEST_BYTES,
    REQUEST_HEADER_BYTES,
    VERSION,
    MalformedFrameError,
    RequestHeader,
    decode_request_header,
    encode_answer,
)
from qr_sampler_grpc.direct.status import Status

__all__ = ["Session", "send_refusal"]

_METHOD: Final = "direct"
_US_PER_S: Final = 1e6
_SEND_TIMEOUT_S: Final = 30
"""How long a client may leave an answer unread before its connection is closed."""
_PIECE_BYTES: Final = 256 * 2**10
"""What is sent at once: a call returns when all of it is in the socket, however long that takes."""
_UNCOUNTED_BYTES: Final = 128 * 2**10
_JUST_NOW_NS: Final = 1_000_000
"""A client that was there a moment ago is taken to be there still; asking costs a system call."""

_STATUSES: Final = {
    Refusal.MALFORMED: Status.MALFORMED,
    Refusal.EXHAUSTED: Status.EXHAUSTED,
    Refusal.TOO_LATE: Status.TOO_LATE,
    # Nobody receives it.
    Refusal.ABANDONED: Status.TOO_LATE,
    Refusal.UNAVAILABLE: Status.UNAVAILABLE,
    Refusal.DEFECT: Status.DEFECT,
}
_NAMES: Final = tuple(status.name for status in Status)


class Session:
    """One connection of a client; runs in its own thread.

    Args:
        connection: The accepted socket, blocking. The creator of the session closes it.
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
        self.connection: Final = connection
        self._socket = connection
        self._device = device
        self._account = account
        self._is_stopping = is_stopping
        self._pending = b""
        self._arrived_ns = 0
        self.idle_since_ns = time.monotonic_ns()
        """When it was last done with a request, in ``time.monotonic_ns()``; 0 while it has one."""
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_TIMEOUT_S, 0)
        )

    def run(self) -> None:
        """Answers requests until either side ends the connection."""
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
        self.idle_since_ns = 0
        status = self._answer(*request)
        # The client has its answer by now.
        self._device.note_answer(_METHOD, _NAMES[status])
        return True

    def _request(self) -> tuple[RequestHeader, bytes] | None:
        """Returns the next request with its commitment, or ``None`` when there are no more."""
        frame = self._pending
        if frame:
            # A request that has waited for an unknown time was not sent just now.
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

    def _answer(self, request: RequestHeader, commitment: bytes) -> Status:
        # What a socket holds anyway is not worth the counting.
        if _UNCOUNTED_BYTES < request.bytes_needed <= self._device.max_bytes_per_request:
            return self._answer_large(request, commitment)
        return self._answer_with(request, commitment, _nothing)

    def _answer_large(self, request: RequestHeader, commitment: bytes) -> Status:
        try:
            place = self._device.answer_memory.take(self._account, request.bytes_needed)
        except CrowdedError as error:
            return self._refuse(request, Status.EXHAUSTED, str(error))
        try:
            return self._answer_with(request, commitment, lambda: place.sending(self._hang_up))
        finally:
            place.free()

    def _answer_with(
        self, request: RequestHeader, commitment: bytes, sending: Callable[[], object]
    ) -> Status:
        try:
            measured = self._measured(request, commitment)
            signature = self._signature(request, measured)
        except MeasurementRefusedError as error:
            return self._refuse(request, _STATUSES[error.kind], error.words)
        head = encode_answer(
            request.sequence_id,
            generation_timestamp_ns=measured.timestamp_ns,
            device_id=measured.device_id.encode(),
            commitment=measured.commitment,
            signature=signature,
            data_length=len(measured.data),
            version=request.version,
        )
        sending()
        self._is_done()
        self._send(head, measured.data)
        return Status.OK

    def _signature(self, request: RequestHeader, measured: Measured) -> bytes:
        number = request.sequence_id
        if request.version != VERSION:
            return self._device.witness(measured, sequence_id=number)
        signature = self._device.sign(measured, sequence_id=number)
        self._device.witness(measured, sequence_id=number, signs=False)
        return signature

    def _refuse(self, request: RequestHeader, status: Status, words: str) -> Status:
        self._is_done()
        self._socket.sendall(
            encode_answer(request.sequence_id, status, words=words, version=request.version)
        )
        return status

    def _is_done(self) -> None:
        # Before the answer leaves: its client may connect elsewhere once it has it.
        self.idle_since_ns = time.monotonic_ns()

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _measured(self, request: RequestHeader, commitment: bytes) -> Measured:
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
        first = data if len(data) <= _PIECE_BYTES else memoryview(data)[:_PIECE_BYTES]
        sent = self._socket.sendmsg((head, first))
        if sent < len(head):
            self._socket.sendall(head[sent:])
            sent = len(head)
        if sent < len(head) + len(data):
            self._send_rest(memoryview(data)[sent - len(head) :])

    def _send_rest(self, rest: memoryview) -> None:
        # Otherwise a client that reads a byte now and then could hold the answer forever.
        deadline_s = time.monotonic() + reading_time_s(len(rest))
        while rest := rest[self._socket.send(rest[:_PIECE_BYTES]) :]:
            if time.monotonic() > deadline_s:
                raise TimeoutError("the client takes too long to read its answer")


def _nothing() -> None:
    pass


def send_refusal(connection: socket.socket, status: Status, words: str) -> None:
    """Tells the client that its connection is refused, if it is still listening."""
    with suppress(OSError):
        connection.send(encode_answer(0, status, words=words))
