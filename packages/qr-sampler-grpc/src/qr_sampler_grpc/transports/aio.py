# SPDX-License-Identifier: Apache-2.0
"""All three modes on gRPC's asyncio interface, for comparison with the synchronous one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

import grpc

from qr_sampler_grpc.protocol.wire import Answer, UnreadableAnswerError, Wire
from qr_sampler_grpc.settings import GrpcOptions
from qr_sampler_grpc.transports.base import (
    AnswerParts,
    Attempt,
    ChannelTransport,
    DeadlineLapsedError,
    Request,
    StrayAnswerError,
    UnfitAnswerError,
    stray,
    unchanged,
)

__all__ = ["AioTransport"]

_Result = TypeVar("_Result")


class AioTransport(ChannelTransport):
    """Asks from an event loop in a thread of its own; see :class:`Transport`.

    Args:
        options: How to reach the server.
    """

    def __init__(self, options: GrpcOptions) -> None:
        super().__init__(options, aio=True)
        self._stream: _AioStream | None = None
        self._fetch: Callable[[Sequence[Request], Attempt], Coroutine[Any, Any, list[Answer]]] = {
            "unary": self._unary,
            "server_streaming": self._server_streaming,
            "bidi_streaming": self._bidi_streaming,
        }[options.mode]

    def answers(self, requests: Sequence[Request], attempt: Attempt) -> Iterator[Answer]:
        """Yields the answers; see :class:`Transport`."""
        yield from _loop().run(self._fetch(requests, attempt))

    def close(self) -> None:
        """Closes the channel and cancels its calls."""
        _loop().run(self._close())

    async def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.end("the connection was closed")
            await stream.ended_reading()
        await self._channel.close_aio()

    async def _unary(self, requests: Sequence[Request], attempt: Attempt) -> list[Answer]:
        call = self._channel.get().unary_unary(self._path, unchanged, unchanged)
        answers = []
        for request in requests:
            message = await call(
                request.message,
                timeout=attempt.remaining_s(),
                metadata=self._metadata,
                wait_for_ready=False,
            )
            answers.append(AnswerParts(request, attempt).add_all(self._wire.decode(message)))
        return answers

    async def _server_streaming(
        self, requests: Sequence[Request], attempt: Attempt
    ) -> list[Answer]:
        method = self._channel.get().unary_stream(self._path, unchanged, unchanged)
        answers = []
        for request in requests:
            call = method(
                request.message,
                timeout=attempt.remaining_s(),
                metadata=self._metadata,
                wait_for_ready=False,
            )
            try:
                answers.append(await self._assembled(call, AnswerParts(request, attempt)))
            finally:
                call.cancel()
        return answers

    async def _assembled(self, call: Any, parts: AnswerParts) -> Answer:
        async for message in call:
            if parts.add(self._wire.decode(message)):
                return parts.whole
        raise parts.unfit()

    async def _bidi_streaming(self, requests: Sequence[Request], attempt: Attempt) -> list[Answer]:
        _ = attempt.remaining_s()
        if self._stream is not None and self._stream.ended:
            ended, self._stream = self._stream, None
            ended.settle(attempt)
        if self._stream is None:
            method = self._channel.get().stream_stream(self._path, unchanged, unchanged)
            self._stream = _AioStream(method(metadata=self._metadata), self._wire)
        stream = self._stream
        left_s = attempt.remaining_s()
        try:
            return await asyncio.wait_for(stream.ask(requests, attempt), left_s)
        except asyncio.TimeoutError:
            stream.fail(DeadlineLapsedError())
            raise DeadlineLapsedError from None
        except BaseException:
            stream.end("another draw on the same stream has failed")
            raise


class _AioStream:
    """An open call and the answers that are awaited on it; belongs to its event loop."""

    def __init__(self, call: Any, wire: Wire) -> None:
        self._call = call
        self._wire = wire
        self._writing = asyncio.Lock()
        self._waiting: dict[int, tuple[AnswerParts, asyncio.Future[Answer]]] = {}
        self._failure: Exception | None = None
        self._is_unheard = False
        self._unheard_bytes = 0
        self._reader = asyncio.ensure_future(self._read())

    @property
    def ended(self) -> bool:
        return self._failure is not None

    def settle(self, attempt: Attempt) -> None:
        """Lets one attempt fail for what the server sent while nobody had asked for anything."""
        if self._is_unheard and self._failure is not None:
            self._is_unheard = False
            attempt.received_bytes += self._unheard_bytes
            raise self._failure

    async def ask(self, requests: Sequence[Request], attempt: Attempt) -> list[Answer]:
        if self._failure is not None:
            self.settle(attempt)
            raise self._failure
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = []
        for request in requests:
            future: asyncio.Future[Answer] = loop.create_future()
            self._waiting[request.sequence_id] = (AnswerParts(request, attempt), future)
            futures.append(future)
        await self._send(requests)
        return [await future for future in futures]

    async def _send(self, requests: Sequence[Request]) -> None:
        async with self._writing:
            for request in requests:
                try:
                    await self._call.write(request.message)
                except asyncio.InvalidStateError:
                    # The call is over; why, the reader is about to learn.
                    await asyncio.wait([self._reader])
                    return

    def end(self, why: str) -> None:
        self.fail(UnfitAnswerError(why))

    def fail(self, failure: Exception) -> None:
        """Ends the stream; all who wait are told the first failure."""
        if self._failure is not None:
            return
        self._failure = failure
        # Ends the reader, too.
        self._call.cancel()
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(failure)
                # Whoever has stopped waiting does not miss it.
                future.exception()
        self._waiting.clear()

    async def ended_reading(self) -> None:
        """Waits until nothing refers to the call any more, so that its connection can be closed."""
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        try:
            async for message in self._call:
                self._deliver(self._wire.decode(message))
        except (StrayAnswerError, UnreadableAnswerError) as error:
            self._is_unheard = not self._waiting
            self.fail(error)
        except (grpc.RpcError, UnfitAnswerError) as error:
            self.fail(error)
        else:
            self.end("the server has ended the stream")

    def _deliver(self, answer: Answer) -> None:
        parts, future = self._waiting.pop(answer.sequence_id or 0, (None, None))
        if parts is None or future is None:
            self._waste(answer)
            raise stray(answer.sequence_id or 0)
        try:
            future.set_result(parts.add_all(answer))
        except UnfitAnswerError as error:
            future.set_exception(error)
            raise

    def _waste(self, answer: Answer) -> None:
        for parts, _ in self._waiting.values():
            parts.waste(answer)
            return
        self._unheard_bytes = len(answer.data)


class _LoopThread:
    """The event loop of a process, in a thread that starts on first use and then stays.

    gRPC wakes all event loops of a process through one pipe, so a loop that ends takes messages
    with it that were meant for the next one. Hence a single loop, whatever is opened and closed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Returns what *work* returns; raises what it raises."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="qr-sampler-grpc-aio", daemon=True
                ).start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


# Keyed by process and filled with setdefault: a forked child has no thread and may have a lock
# that stays locked.
_LOOPS: Final[dict[int, _LoopThread]] = {}


def _loop() -> _LoopThread:
    return _LOOPS.setdefault(os.getpid(), _LoopThread())
