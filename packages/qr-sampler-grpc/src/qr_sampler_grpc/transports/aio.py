# SPDX-License-Identifier: Apache-2.0
"""All three modes on gRPC's asyncio interface, for comparison with the synchronous one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import grpc

from qr_sampler_grpc.channel import Channel
from qr_sampler_grpc.settings import GrpcOptions
from qr_sampler_grpc.transports.base import (
    AnswerParts,
    Attempt,
    DeadlineLapsedError,
    Request,
    UnfitAnswerError,
    unchanged,
)
from qr_sampler_grpc.wire import Answer, UnreadableAnswerError, Wire

__all__ = ["AioTransport"]

_Result = TypeVar("_Result")


class AioTransport:
    """Runs an event loop in a thread of its own, and asks from there; see :class:`Transport`.

    Args:
        options: How to reach the server.
    """

    def __init__(self, options: GrpcOptions) -> None:
        self._channel = Channel(options.address, options.tls, aio=True)
        self._path = options.contract.method_path
        self._wire = options.contract.wire
        self._metadata = options.credentials.metadata if options.credentials else ()
        self._loop = _LoopThread()
        self._stream: _AioStream | None = None
        self._fetch: Callable[[Sequence[Request], Attempt], Coroutine[Any, Any, list[Answer]]] = {
            "unary": self._unary,
            "server_streaming": self._server_streaming,
            "bidi_streaming": self._bidi_streaming,
        }[options.mode]

    def answers(self, requests: Sequence[Request], attempt: Attempt) -> Iterator[Answer]:
        """Yields the answers; see :class:`Transport`."""
        yield from self._loop.run(self._fetch(requests, attempt))

    def close(self) -> None:
        """Closes the channel and ends the thread."""
        self._loop.close(self._close)

    async def _close(self) -> None:
        if self._stream is not None:
            self._stream.end("the source was closed")
            self._stream = None
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
        if self._stream is None or self._stream.ended:
            method = self._channel.get().stream_stream(self._path, unchanged, unchanged)
            self._stream = _AioStream(method(metadata=self._metadata), self._wire)
        stream = self._stream
        try:
            return await asyncio.wait_for(stream.ask(requests, attempt), attempt.remaining_s())
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
        self._reader = asyncio.ensure_future(self._read())

    @property
    def ended(self) -> bool:
        return self._failure is not None

    async def ask(self, requests: Sequence[Request], attempt: Attempt) -> list[Answer]:
        if self._failure is not None:
            raise self._failure
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = []
        for request in requests:
            future: asyncio.Future[Answer] = loop.create_future()
            self._waiting[request.sequence_id] = (AnswerParts(request, attempt), future)
            futures.append(future)
        async with self._writing:
            for request in requests:
                await self._call.write(request.message)
        return [await future for future in futures]

    def end(self, why: str) -> None:
        self.fail(UnfitAnswerError(why))

    def fail(self, failure: Exception) -> None:
        """Ends the stream; all who wait are told the first failure."""
        if self._failure is not None:
            return
        self._failure = failure
        self._call.cancel()
        self._reader.cancel()
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(failure)
                # Whoever has stopped waiting does not miss it.
                future.exception()
        self._waiting.clear()

    async def _read(self) -> None:
        try:
            async for message in self._call:
                self._deliver(self._wire.decode(message))
        except (grpc.RpcError, UnreadableAnswerError, UnfitAnswerError) as error:
            self.fail(error)
        else:
            self.end("the server has ended the stream")

    def _deliver(self, answer: Answer) -> None:
        parts, future = self._waiting.pop(answer.sequence_id or 0, (None, None))
        if parts is None or future is None:
            raise UnfitAnswerError(
                f"the answer names request {answer.sequence_id}, which nobody waits for"
            )
        try:
            future.set_result(parts.add_all(answer))
        except UnfitAnswerError as error:
            future.set_exception(error)
            raise


class _LoopThread:
    """An event loop in a thread that starts on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Returns what *work* returns; raises what it raises."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="qr-sampler-grpc-aio", daemon=True
                )
                self._thread.start()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs *last*, ends whatever else is running, and then the thread and the loop."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_finish(last), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _finish(last: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await last()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
