# SPDX-License-Identifier: Apache-2.0
"""One connection to a server: requests out, answers in, all of it before a deadline."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_grpc.attestation import signed_message
from qr_sampler_grpc.direct.frame import (
    ANSWER_HEADER_BYTES,
    MAX_ANSWER_PREFIX_BYTES,
    AnswerHeader,
    AnswerText,
    MalformedFrameError,
    decode_answer_header,
    decode_answer_text,
    encode_request,
)
from qr_sampler_grpc.direct.link import Link

__all__ = ["Answer", "Connection", "StaleConnectionError"]

_WINDOW: Final = 16
"""Most unanswered requests. A server that is busy sending reads none, so they have to fit into the
buffer of a socket."""
_NS_PER_MS: Final = 1_000_000
_PIECE_BYTES: Final = 256 * 1024


class StaleConnectionError(Exception):
    """The server closed a connection while it was idle; nothing was asked for on it since."""


class Answer(NamedTuple):
    """An answer that is what was asked for."""

    data: bytes
    device_id: str
    generation_timestamp_ns: int
    """0 when the server does not know it."""
    echoed: bool | None
    """Whether the commitment came back; ``None`` when none was sent."""
    verified: bool | None
    """Whether the signature is right; ``None`` when there is no key."""


class Connection:
    """A connection that serves one draw at a time.

    Whoever catches an error of it closes it: what still arrives on it would answer nobody.

    Args:
        link: Where to connect to.
        deadline_ns: When the time of the draw is over, in ``time.monotonic_ns()``.

    Raises:
        EntropyUnavailableError: When there is no connection to be had.
    """

    def __init__(self, link: Link, deadline_ns: int) -> None:
        self._link = link
        self._socket = link.connect(deadline_ns)
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._buffer = bytearray(MAX_ANSWER_PREFIX_BYTES)
        self._filled = 0
        # The text between header and data is mostly as long as the last time, so both are read at
        # once. What was read too much is not lost; it only costs a copy.
        self._expected = ANSWER_HEADER_BYTES
        self._fresh = True

    @property
    def is_clean(self) -> bool:
        """Whether nothing has arrived beyond the answers that were waited for."""
        return not self._filled

    def exchange(
        self, wanted: Sequence[tuple[int, int]], timeout_us: int, commitment: bytes, deadline: int
    ) -> list[Answer]:
        """Returns an answer to each request.

        Args:
            wanted: The number of each request and how many bytes it asks for, at least one.
            timeout_us: How long the server is told that the answer is waited for.
            commitment: What every request carries.
            deadline: When the time is over, in ``time.monotonic_ns()``.

        Raises:
            EntropyUnavailableError: When anything else comes, or nothing in time.
            StaleConnectionError: When the server had closed the connection after an earlier draw.
        """
        requests = [
            encode_request(number, size, timeout_us, commitment)
            for number, size in wanted
        ]
        heard = self._send(b"".join(requests[:_WINDOW]))
        answers: list[Answer] = []
        try:
            for answered, (number, size) in enumerate(wanted):
                answers.append(self._receive(number, size, commitment, deadline))
                if not heard:
                    raise self._link.lost("an answer without a request")
                if answered + _WINDOW < len(requests):
                    heard = self._send(requests[answered + _WINDOW])
        except EntropyUnavailableError as error:
            error.dropped_bytes += sum(len(answer.data) for answer in answers)
            raise
        return answers

    def close(self) -> None:
        """Ends the connection, also where a forked child still holds a copy of it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.release()

    def release(self) -> None:
        """Closes the socket of this process and leaves the connection to the one it came from."""
        self._socket.close()

    def _send(self, frames: bytes) -> bool:
        """Returns whether the server is still there to read *frames*."""
        fresh, self._fresh = self._fresh, False
        try:
            if self._socket.send(frames) == len(frames):
                return True
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            if not fresh:
                raise StaleConnectionError from None
            # It may have said why before it closed the connection.
            return False
        raise self._link.lost("the server reads no requests")

    def _receive(self, number: int, size: int, commitment: bytes, deadline: int) -> Answer:
        try:
            if not self._filled:
                self._wait(deadline)
            self._fill(ANSWER_HEADER_BYTES, deadline)
            header = decode_answer_header(self._buffer, number, size)
            self._expected = before = ANSWER_HEADER_BYTES + header.text_length
            self._fill(before, deadline)
            text = decode_answer_text(header, self._buffer)
        except MalformedFrameError as error:
            raise self._link.lost(f"{error}; it was dropped", error.announced_bytes) from error
        if header.status:
            raise self._link.refused(header.status, text.words, size)
        data = self._data(before, size, deadline)
        return Answer(
            data,
            text.device_id,
            header.generation_timestamp_ns,
            self._is_echoed(text, commitment, size) if commitment else None,
            self._is_verified(header, text, data),
        )

    def _fill(self, need: int, deadline: int) -> None:
        """Reads until the buffer holds *need* bytes."""
        while (filled := self._filled) < need:
            want = max(need, self._expected)
            # A slice costs more than the whole, and the whole is what is mostly read.
            room = memoryview(self._buffer)[filled:want] if filled else self._buffer
            try:
                count = self._socket.recv_into(room, want - filled)
            except BlockingIOError:
                self._wait(deadline)
                continue
            except ConnectionResetError:
                count = 0
            if not count:
                raise self._link.lost("the server closed the connection instead of an answer")
            self._filled = filled + count

    def _data(self, before: int, size: int, deadline: int) -> bytes:
        """Returns the data of the answer whose first *before* bytes are in the buffer."""
        if self._filled == before:
            self._filled = 0
            return self._rest(b"", size, deadline)
        after = min(before + size, self._filled)
        first = bytes(self._buffer[before:after])
        left = self._filled - after
        self._buffer[:left] = self._buffer[after : self._filled]
        self._filled = left
        return first if len(first) == size else self._rest(first, size, deadline)

    def _rest(self, first: bytes, size: int, deadline: int) -> bytes:
        pieces, missing = [first], size - len(first)
        try:
            while missing:
                # Straight into the bytes that are returned, if they are there all at once.
                piece = self._piece(min(missing, _PIECE_BYTES), deadline)
                pieces.append(piece)
                missing -= len(piece)
        except EntropyUnavailableError as error:
            error.dropped_bytes += size - missing
            raise
        return pieces[1] if len(pieces) == 2 and not first else b"".join(pieces)

    def _piece(self, most: int, deadline: int) -> bytes:
        while True:
            try:
                piece = self._socket.recv(most)
            except BlockingIOError:
                self._wait(deadline)
                continue
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise self._link.lost("the server closed the connection within an answer")
            if time.monotonic_ns() >= deadline:
                error = self._link.lapsed()
                error.dropped_bytes = len(piece)
                raise error
            return piece

    def _wait(self, deadline: int) -> None:
        remaining_ns = deadline - time.monotonic_ns()
        if remaining_ns <= 0 or not self._readable.poll(remaining_ns / _NS_PER_MS):
            raise self._link.lapsed()

    def _is_echoed(self, text: AnswerText, commitment: bytes, size: int) -> bool:
        if text.commitment and text.commitment != commitment:
            raise self._link.lost("the answer to another commitment; it was dropped", size)
        return bool(text.commitment)

    def _is_verified(self, header: AnswerHeader, text: AnswerText, data: bytes) -> bool | None:
        key = self._link.key
        if key is None:
            return None
        message = signed_message(
            sequence_id=header.sequence_id,
            generation_timestamp_ns=header.generation_timestamp_ns,
            device_id=text.device_id,
            commitment=text.commitment,
            data=data,
        )
        if text.signature and key.verifies(text.signature, message):
            return True
        problem = "a wrong signature" if text.signature else "an answer that is not signed"
        raise self._link.lost(f"{problem}; its bytes were dropped", len(data))
