# SPDX-License-Identifier: Apache-2.0
"""One connection to a server: requests out, answers in, all of it before a deadline."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from qr_sampler_grpc.direct.endpoint import Endpoint
from qr_sampler_grpc.direct.frame import (
    AFTER_TIME_OFFSET,
    ANSWER_HEADER_BYTES,
    RECORD_VERSION,
    TIME,
    TIME_OFFSET,
    VERSION,
    AnswerHeader,
    AnswerText,
    MalformedFrameError,
    data_in,
    decode_answer_header,
    decode_answer_text,
    encode_request,
    usual_answer,
)
from qr_sampler_grpc.direct.inbox import Inbox
from qr_sampler_grpc.direct.status import Status
from qr_sampler_grpc.link import LinkFailure
from qr_sampler_grpc.protocol.attestation import signed_message, signed_record

__all__ = ["Connection", "DirectAnswer", "OlderServerError", "StaleConnectionError"]

_WINDOW: Final = 16
"""Most unanswered requests. A server that is busy sending reads none, so they have to fit into the
buffer of a socket."""
_LEFTOVER_BYTES: Final = 64 * 1024
"""How many unusable bytes beyond the request are read in order to count them."""
_COPIED_BYTES: Final = 64 * 1024
"""Most bytes that are read together with what comes before them and then copied, which takes less
time than a second read."""


class StaleConnectionError(Exception):
    """The server closed a connection while it was idle; nothing was asked for on it since."""


class OlderServerError(Exception):
    """The server reads no requests of this version; nothing was measured."""


class DirectAnswer(NamedTuple):
    """An answer that is what was asked for."""

    data: bytes
    device_id: str
    generation_timestamp_ns: int
    """0 when the server does not know it."""
    echoed: bool | None
    """Whether the commitment came back; ``None`` when none was sent."""
    verified: bool | None
    """Whether the signature is right; ``None`` when there is no key."""
    signature: bytes = b""
    """The signature; empty if there is none."""
    sequence_id: int | None = None
    """The number of the request, if records alone can verify the signature with it."""


class Connection:
    """A connection that serves one draw at a time.

    After an error its caller closes it: whatever still arrives would answer no request.

    Args:
        endpoint: Where to connect to.
        deadline: When the time of the draw is over, in ``time.monotonic_ns()``.
        version: In what the server is asked; ``None`` asks for signatures for records where there
            is a key to verify them with.

    Raises:
        LinkFailure: When no connection can be made.
    """

    def __init__(self, endpoint: Endpoint, deadline: int, version: int | None = None) -> None:
        self._endpoint = endpoint
        preferred = VERSION if endpoint.key is None else RECORD_VERSION
        self._version = preferred if version is None else version
        self._is_read = self._version == VERSION
        self._socket = endpoint.connect(deadline)
        self._inbox = Inbox(endpoint, self._socket)
        self._device_id = ""
        self._raw_device_id = b""
        self._fresh = True

    @property
    def is_clean(self) -> bool:
        """Whether nothing has arrived beyond the expected answers."""
        return not self._inbox.pending

    def ask(
        self, number: int, size: int, timeout_us: int, commitment: bytes, deadline: int
    ) -> DirectAnswer:
        """Returns the answer to one request.

        Args:
            number: Number of the request.
            size: How many bytes it asks for.
            timeout_us: How long the server is told that the answer is waited for.
            commitment: What the request carries.
            deadline: When the time is over, in ``time.monotonic_ns()``.

        Raises:
            LinkFailure: When anything else comes, or nothing in time.
            OlderServerError: When the server does not know the version of the request.
            StaleConnectionError: When the server had closed the connection after an earlier draw.
        """
        self._check_silence(size)
        request = encode_request(number, size, timeout_us, commitment, self._version)
        self._send(request, deadline)
        try:
            return self._receive(number, size, commitment, deadline)
        except LinkFailure as error:
            self._count_leftovers(error, size)
            raise

    def ask_all(
        self, pairs: Sequence[tuple[int, int]], timeout_us: int, commitment: bytes, deadline: int
    ) -> list[DirectAnswer]:
        """Returns the answer to each of several requests, which do not wait for each other.

        Args:
            pairs: The number of each request and how many bytes it asks for.
            timeout_us: As for :meth:`ask`.
            commitment: As for :meth:`ask`.
            deadline: As for :meth:`ask`.

        Raises:
            LinkFailure: As for :meth:`ask`; counts the bytes of the answers before.
            OlderServerError: As for :meth:`ask`.
            StaleConnectionError: As for :meth:`ask`.
        """
        requests = [
            encode_request(number, size, timeout_us, commitment, self._version)
            for number, size in pairs
        ]
        total = sum(size for _, size in pairs)
        self._check_silence(total)
        self._send(b"".join(requests[:_WINDOW]), deadline)
        answers: list[DirectAnswer] = []
        try:
            for later, (number, size) in enumerate(pairs, _WINDOW):
                answers.append(self._receive(number, size, commitment, deadline))
                if later < len(requests):
                    self._send_on(requests[later], deadline)
        except LinkFailure as error:
            self._count_leftovers(error, total)
            error.dropped_bytes += sum(len(answer.data) for answer in answers)
            raise
        return answers

    def close(self) -> None:
        """Ends the connection, even if a forked child still holds a copy of it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.release()

    def release(self) -> None:
        """Closes the socket of this process and leaves the connection to the one it came from."""
        self._socket.close()

    def _check_silence(self, size: int) -> None:
        """Returns if nothing lies in the socket that could pass for an answer.

        Raises:
            LinkFailure: When something does: the refusal of the connection, or what no one has
                asked for.
            StaleConnectionError: When the server had closed the connection after an earlier draw.
        """
        if self._inbox.is_silent:
            return
        stream, _ = self._inbox.leftovers(size + _LEFTOVER_BYTES)
        if not stream and not self._fresh:
            raise StaleConnectionError
        with suppress(MalformedFrameError):
            if len(stream) >= ANSWER_HEADER_BYTES:
                header = decode_answer_header(stream, 0, 0)
                if header.status:
                    words = decode_answer_text(header, stream).words
                    raise self._endpoint.refused(header.status, words, size)
        if not stream:
            raise self._endpoint.lost("the connection ended before a request left")
        raise self._endpoint.lost(
            "something had arrived before the request left; it was dropped", data_in(stream)
        )

    def _count_leftovers(self, failure: LinkFailure, size: int) -> None:
        """Counts the bytes of the answers that have arrived but were not read."""
        stream, missing = self._inbox.leftovers(size + _LEFTOVER_BYTES)
        failure.dropped_bytes += data_in(stream, missing)

    def _send(self, frames: bytes, deadline: int) -> None:
        fresh, self._fresh = self._fresh, False
        try:
            if self._socket.send(frames, socket.MSG_DONTWAIT) == len(frames):
                return
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            if not fresh:
                raise StaleConnectionError from None
            # It may have sent the reason before it closed the connection; nothing else
            # can answer 0.
            self._take_apart(0, 0, b"", deadline)
        raise self._endpoint.lost("the server reads no requests")

    def _send_on(self, frame: bytes, deadline: int) -> None:
        """Sends a request of a draw that others of it have been answered of."""
        try:
            self._send(frame, deadline)
        except StaleConnectionError:
            raise self._endpoint.lost("the connection ended where an answer was due") from None

    def _receive(self, number: int, size: int, commitment: bytes, deadline: int) -> DirectAnswer:
        # Answers are alike but for their numbers, times and data. All that comes before the data
        # is read at once, and compared with what is expected instead of being taken apart.
        before, after = usual_answer(number, size, self._raw_device_id, commitment)
        inbox, length = self._inbox, AFTER_TIME_OFFSET + len(after)
        most = length + size if size <= _COPIED_BYTES else length
        frame = inbox.pending or inbox.first(most, deadline)
        if (
            self._endpoint.key is not None
            or not frame.startswith(before)
            or not frame.startswith(after, AFTER_TIME_OFFSET)
        ):
            inbox.pending = frame
            return self._take_apart(number, size, commitment, deadline)
        (timestamp_ns,) = TIME.unpack_from(frame, TIME_OFFSET)
        if len(frame) == length + size:
            inbox.pending, data = b"", frame[length:]
        else:
            inbox.pending = frame
            data = inbox.data(length, size, deadline)
        return DirectAnswer(data, self._device_id, timestamp_ns, True if commitment else None, None)

    def _take_apart(self, number: int, size: int, commitment: bytes, deadline: int) -> DirectAnswer:
        inbox = self._inbox
        try:
            inbox.fill(ANSWER_HEADER_BYTES, deadline)
            header = decode_answer_header(inbox.pending, number, size, self._version)
            before = ANSWER_HEADER_BYTES + header.text_length
            inbox.fill(before, deadline)
            text = decode_answer_text(header, inbox.pending)
        except MalformedFrameError as error:
            raise self._endpoint.lost(f"{error}; it was dropped") from error
        if header.status:
            if not self._is_read and _is_older(header):
                raise OlderServerError
            raise self._endpoint.refused(header.status, text.words, size)
        self._is_read = True
        data = inbox.data(before, size, deadline)
        self._device_id, self._raw_device_id = text.device_id, text.device_id.encode()
        echoed = self._is_echoed(text, commitment, size) if commitment else None
        verified = self._is_verified(header, text, data)
        return DirectAnswer(
            data,
            text.device_id,
            header.generation_timestamp_ns,
            echoed,
            verified,
            text.signature,
            # A server that does not return the commitment has not signed it.
            number if self._version == RECORD_VERSION and echoed is not False else None,
        )

    def _is_echoed(self, text: AnswerText, commitment: bytes, size: int) -> bool:
        if text.commitment and text.commitment != commitment:
            raise self._endpoint.lost("the answer to another commitment; it was dropped", size)
        return bool(text.commitment)

    def _is_verified(self, header: AnswerHeader, text: AnswerText, data: bytes) -> bool | None:
        key = self._endpoint.key
        if key is None:
            return None
        told: Any = {
            "sequence_id": header.sequence_id,
            "generation_timestamp_ns": header.generation_timestamp_ns,
            "device_id": text.device_id,
            "commitment": text.commitment,
        }
        if self._version == RECORD_VERSION:
            message = signed_record(**told, data_sha256=hashlib.sha256(data).digest())
        else:
            message = signed_message(**told, data=data)
        if text.signature and key.verifies(text.signature, message):
            return True
        problem = "a wrong signature" if text.signature else "an answer that is not signed"
        raise self._endpoint.lost(f"{problem}; its bytes were dropped", len(data))


def _is_older(refusal: AnswerHeader) -> bool:
    """Returns whether a server says that it knows no version but the first."""
    return refusal.status == Status.UNREADABLE and (refusal.version, refusal.sequence_id) == (
        VERSION,
        0,
    )
