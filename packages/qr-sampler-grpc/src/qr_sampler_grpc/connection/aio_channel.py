# SPDX-License-Identifier: Apache-2.0
"""Channels of gRPC's asyncio interface behind the synchronous interface.

The event loop runs in its own thread, and callers wait for it. Errors are those of the
synchronous interface. Only what the transports use is implemented; messages are bytes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Final, TypeVar

import grpc

from qr_sampler.per_process import PerProcess

__all__ = ["AioChannel", "insecure_channel", "secure_channel"]

_Result = TypeVar("_Result")


class _LoopThread:
    """The event loop of a process, in a thread that starts on first use and then stays.

    gRPC wakes all event loops of a process through one pipe, so a loop that ends takes messages
    with it that were meant for the next one. Hence a single loop, whatever is opened and closed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        """Returns the running loop."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="qr-sampler-grpc-aio", daemon=True
                ).start()
            return self._loop


# A forked child has no thread and may have a lock that stays locked.
_LOOPS: Final = PerProcess(_LoopThread)


async def _called(function: Callable[[], _Result]) -> _Result:
    return function()


def _in_loop(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Returns what *work* returns.

    Raises:
        grpc.RpcError: When a call ends with another status than OK, or is cancelled here.
        ValueError: When the channel is closed.
    """
    try:
        return asyncio.run_coroutine_threadsafe(work, _LOOPS.get().get()).result()
    except CancelledError:
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.CANCELLED, nothing, nothing, "cancelled by this client"
        ) from None
    except grpc.aio.UsageError as error:
        raise ValueError(str(error)) from error


class _OpenCall:
    """An open call whose answers are read one after the other."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        message: Any = _in_loop(self._call.read())
        if message is grpc.aio.EOF:
            raise StopIteration
        return bytes(message)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Calls *callback* in the loop once the call has ended; returns ``True``."""
        loop = _LOOPS.get().get()
        loop.call_soon_threadsafe(self._call.add_done_callback, lambda _: callback())
        return True

    def cancel(self) -> None:
        """Ends the call."""
        _LOOPS.get().get().call_soon_threadsafe(self._call.cancel)

    def send(self, messages: Iterable[bytes]) -> None:
        """Sends *messages* until there are no more or the call has ended."""
        try:
            for message in messages:
                _in_loop(self._call.write(message))
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The call is over; its reader finds out why.
            return


class AioChannel:
    """A channel whose calls are made in the event loop; see the module.

    Args:
        make: Makes the channel of gRPC; called in the loop.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._channel: Any = _in_loop(_called(make))

    def unary_unary(self, path: str) -> Callable[..., bytes]:
        """Returns a function that makes a call and returns its only answer."""
        method = self._channel.unary_unary(path)

        async def ask(message: bytes, options: dict[str, Any]) -> bytes:
            return bytes(await method(message, **options))

        return lambda message, **options: _in_loop(ask(message, options))

    def unary_stream(self, path: str) -> Callable[..., _OpenCall]:
        """Returns a function that makes a call with several answers."""
        method = self._channel.unary_stream(path)
        return lambda message, **options: _in_loop(
            _called(lambda: _OpenCall(method(message, **options)))
        )

    def stream_stream(self, path: str) -> Callable[..., _OpenCall]:
        """Returns a function that opens a stream; a separate thread sends the requests."""
        method = self._channel.stream_stream(path)

        def open_stream(messages: Iterable[bytes], **options: Any) -> _OpenCall:
            call = _in_loop(_called(lambda: _OpenCall(method(**options))))
            threading.Thread(
                target=call.send, args=(messages,), name="qr-sampler-grpc-aio-send", daemon=True
            ).start()
            return call

        return open_stream

    def close(self) -> None:
        """Cancels the calls and closes the channel."""
        _in_loop(self._channel.close())


def insecure_channel(target: str, options: Any) -> AioChannel:
    """Returns a channel as ``grpc.insecure_channel`` does."""
    return AioChannel(partial(grpc.aio.insecure_channel, target, options=options))


def secure_channel(target: str, credentials: Any, options: Any) -> AioChannel:
    """Returns a channel as ``grpc.secure_channel`` does."""
    return AioChannel(partial(grpc.aio.secure_channel, target, credentials, options=options))
