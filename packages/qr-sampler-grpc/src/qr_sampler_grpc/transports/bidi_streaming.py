# SPDX-License-Identifier: Apache-2.0
"""One stream that stays open, on which requests and answers are matched by their names."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import grpc

from qr_sampler_grpc.protocol.wire import Answer, UnreadableAnswerError, Wire
from qr_sampler_grpc.settings import GrpcOptions
from qr_sampler_grpc.transports.base import (
    AnswerParts,
    Attempt,
    ChannelTransport,
    DeadlineLapsedError,
    PreparedRequest,
    UnfitAnswerError,
    stray,
)
from qr_sampler_grpc.transports.watchdog import Watchdog

__all__ = ["BidiStreamingTransport"]

_NS_PER_S: Final = 1_000_000_000


class BidiStreamingTransport(ChannelTransport):
    """Keeps one stream open and has all requests of all threads under way on it at once.

    Whatever goes wrong with one answer ends the stream, and with it the others that are under way:
    what still travels on it can then never be taken for the answer to a later request. What lies in
    it when a request leaves is read before the answer to that request, and spoils it.

    Args:
        options: How to reach the server.
    """

    def __init__(self, options: GrpcOptions) -> None:
        super().__init__(options)
        self._watchdog = Watchdog()
        self._lock = threading.Lock()
        self._stream: _Stream | None = None

    def answers(self, requests: Sequence[PreparedRequest], attempt: Attempt) -> Iterator[Answer]:
        """Yields the answers; see :class:`Transport`."""
        stream, pending = self._send(requests, attempt)
        ticket = self._watchdog.watch(attempt.deadline_ns / _NS_PER_S, stream.lapse)
        unanswered = len(pending)
        try:
            for awaited in pending:
                answer = stream.wait_for(awaited)
                unanswered -= 1
                yield answer
        finally:
            self._watchdog.lift(ticket)
            if unanswered:
                stream.end("another draw on the same stream has failed")

    def close(self) -> None:
        """Ends the stream and closes the channel."""
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.end("the connection was closed")
        self._watchdog.close()
        super().close()

    def _send(
        self, requests: Sequence[PreparedRequest], attempt: Attempt
    ) -> tuple[_Stream, list[_Pending]]:
        """Sends *requests* on the open stream, or on a new one when that has just ended."""
        while True:
            stream = self._open_stream()
            _ = attempt.remaining_s()
            pending = stream.send(requests, attempt)
            if pending is not None:
                return stream, pending

    def _open_stream(self) -> _Stream:
        with self._lock:
            if self._stream is None or self._stream.ended:
                method = self._channel.get().stream_stream(self._path)
                outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
                # No time limit: the stream outlives the draws, each of which has its own.
                call = method(
                    iter(outgoing.get, None), metadata=self._metadata, wait_for_ready=False
                )
                self._stream = _Stream(call, outgoing, self._wire)
            return self._stream


class _Pending:
    """A request whose answer is under way."""

    def __init__(self, request: PreparedRequest, attempt: Attempt) -> None:
        self.parts = AnswerParts(request, attempt)
        self.answer: Answer | None = None
        self.wake = threading.Event()


class _Stream:
    """An open call. One of the waiting threads reads for all.

    A separate reading thread would cost every answer another change of threads, which takes
    longer than everything else that Python does here.
    """

    def __init__(self, call: Any, outgoing: queue.SimpleQueue[bytes | None], wire: Wire) -> None:
        self._call = call
        self._outgoing = outgoing
        self._wire = wire
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._waiting: dict[int, _Pending] = {}
        self._failure: Exception | None = None
        if not call.add_callback(self._call_ended):
            self._call_ended()

    @property
    def ended(self) -> bool:
        """Whether it takes no more requests."""
        return self._failure is not None

    def send(self, requests: Iterable[PreparedRequest], attempt: Attempt) -> list[_Pending] | None:
        """Sends *requests* and returns what to wait for; ``None`` when the stream has ended."""
        pending = []
        with self._lock:
            if self.ended:
                return None
            for request in requests:
                awaited = _Pending(request, attempt)
                self._waiting[request.sequence_id] = awaited
                pending.append(awaited)
                self._outgoing.put(request.message)
        return pending

    def wait_for(self, awaited: _Pending) -> Answer:
        """Returns the answer to a request, reading from the stream unless another thread does."""
        while awaited.answer is None:
            if self._failure is not None:
                raise self._failure
            if self._reading.acquire(blocking=False):
                try:
                    self._read_until_answered(awaited)
                finally:
                    self._reading.release()
                    self._wake_all()
            else:
                awaited.wake.wait()
                awaited.wake.clear()
        return awaited.answer

    def lapse(self) -> None:
        """Ends the stream because the deadline of a draw has passed."""
        self._fail(DeadlineLapsedError())

    def end(self, why: str) -> None:
        """Ends the stream and everything that is under way on it."""
        self._fail(UnfitAnswerError(why))

    def _call_ended(self) -> None:
        """Notes that the server is gone. Waiting threads learn more by reading."""
        if not self._waiting:
            self.end("the server has ended the stream")

    def _read_until_answered(self, awaited: _Pending) -> None:
        """Hands messages to whoever waits for them, until *awaited* has its own."""
        while awaited.answer is None and self._failure is None:
            try:
                self._deliver(self._wire.decode(next(self._call)), awaited)
            except StopIteration:
                self.end("the server has ended the stream")
            except (grpc.RpcError, UnreadableAnswerError, UnfitAnswerError) as error:
                self._fail(error)

    def _deliver(self, answer: Answer, reader: _Pending) -> None:
        sequence_id = answer.sequence_id or 0
        with self._lock:
            awaited = self._waiting.pop(sequence_id, None)
        if awaited is None:
            reader.parts.waste(answer)
            raise stray(sequence_id)
        awaited.answer = awaited.parts.add_all(answer)
        awaited.wake.set()

    def _wake_all(self) -> None:
        with self._lock:
            waiting = list(self._waiting.values())
        for awaited in waiting:
            awaited.wake.set()

    def _fail(self, failure: Exception) -> None:
        """Ends the stream; all who wait are told the first failure."""
        with self._lock:
            if self._failure is not None:
                return
            self._failure = failure
        self._call.cancel()
        # Ends the thread in which gRPC waits for requests.
        self._outgoing.put(None)
        self._wake_all()
