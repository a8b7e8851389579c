# SPDX-License-Identifier: Apache-2.0
"""Runs a standard service in its own threads, apart from the clients that draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError

from qr_sampler_grpc.server.lanes import Handler, Lane, Refusals
from qr_sampler_grpc.server.wait_limits import WaitLimits

__all__ = ["ServiceApart"]


_LONGEST_S: Final = 60.0
"""How long a call may last whose client keeps asking."""


class ServiceApart(grpc.GenericRpcHandler):
    """Bounds what everybody may ask without an API key: in threads, in number and in time.

    The generated functions add their service to it as they would to a server, which then takes it
    as a handler.

    Args:
        lane: Where its calls run that have one answer; a call that finds it full is refused.
        streams: Where its calls run that may have several, in the same way.
        refusals: Where calls are refused.
        wait_limits: Ends calls that send nothing.
    """

    def __init__(
        self,
        lane: Lane,
        streams: Lane,
        refusals: Refusals,
        wait_limits: WaitLimits,
    ) -> None:
        self._lane = lane
        self._streams = streams
        self._refusals = refusals
        self._wait_limits = wait_limits
        self._inner: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Takes the place of the method of a server."""
        self._inner.extend(handlers)

    def add_registered_method_handlers(self, _service: str, _handlers: object) -> None:
        """Takes the place of the method of a server; the generic handlers are the same."""

    def service(self, handler_call_details: Any) -> Handler | None:
        """Returns what answers a call, ``None`` when it is for another service."""
        for inner in self._inner:
            handler = inner.service(handler_call_details)
            if handler is not None:
                lane = self._streams if handler.response_streaming else self._lane
                is_full = lane.is_full
                return self._refusals.carry(_refuse_crowded) if is_full else self._bounded(handler)
        return None

    def _bounded(self, handler: Any) -> Handler:
        parse, serialise = handler.request_deserializer, handler.response_serializer
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streams.carries(self._conversation(handler.stream_stream)), parse, serialise
            )
        # What takes one request is offered as a stream, so that waiting for it can be bounded.
        if handler.response_streaming:
            watch = self._watch(handler.unary_stream, parse)
            return grpc.stream_stream_rpc_method_handler(
                self._streams.carries(watch), None, serialise
            )
        return grpc.stream_unary_rpc_method_handler(
            self._lane.carries(self._single(handler.unary_unary, parse)), None, serialise
        )

    def _conversation(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def run(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            with self._wait_limits.limit(_LONGEST_S, context.cancel):
                yield from behaviour(messages, context)

        return run

    def _single(
        self, behaviour: Callable[..., Any], parse: Callable[[bytes], Any]
    ) -> Callable[..., Any]:
        def run(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            return behaviour(self._request(messages, context, parse), context)

        return run

    def _watch(
        self, behaviour: Callable[..., Any], parse: Callable[[bytes], Any]
    ) -> Callable[..., Any]:
        def run(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            yield from behaviour(self._request(messages, context, parse), context)

        return run

    def _request(
        self,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        parse: Callable[[bytes], Any],
    ) -> Any:
        message = self._wait_limits.only_message(messages, context)
        if message is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "the call needs one message")
        try:
            return parse(message)
        except DecodeError:
            context.abort(grpc.StatusCode.INTERNAL, "the message cannot be read")


def _refuse_crowded(_messages: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many ask at once; try again")
