# SPDX-License-Identifier: Apache-2.0
"""Answers the calls of the wire contract from a device."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

import grpc
from google.protobuf.message import DecodeError

from qr_sampler_grpc.device import Device, Measured, MeasurementRefusedError, Refusal
from qr_sampler_grpc.device.answer_memory import AnswerPlace, CrowdedError, reading_time_s
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest
from qr_sampler_grpc.server.answers import ServedAnswer, serialised
from qr_sampler_grpc.server.keys import ApiKeys
from qr_sampler_grpc.server.lanes import Handler, Lane, Refusals
from qr_sampler_grpc.server.wait_limits import WaitLimits

__all__ = ["CHUNK_BYTES", "EntropyServicer"]

CHUNK_BYTES: Final = 2**20
"""Most data in one message of an answer that may come in several."""

_LOGGER: Final = logging.getLogger("qr_sampler.grpc")
_CODES: Final = {
    Refusal.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Refusal.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Refusal.TOO_LATE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Refusal.ABANDONED: grpc.StatusCode.CANCELLED,
    Refusal.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Refusal.DEFECT: grpc.StatusCode.INTERNAL,
}
_SERVICE: Final = "qr_entropy.EntropyService"
_UNARY: Final = "GetEntropy"
_STREAM: Final = "StreamEntropy"
_UNARY_THREADS: Final = 8
_WAITING_CALLS: Final = 256
"""Single calls that may wait for a thread; a further one is refused."""


class EntropyServicer(grpc.GenericRpcHandler):
    """Serves *device*: measures when a request has arrived, and only then.

    A call's key is checked before it takes a thread and before its message is waited for, so
    callers without a key cannot hold up those with one.

    Args:
        device: Where the bytes come from.
        keys: One of them must be in every call; ``None`` answers everybody.
        max_streams: Most streams that may be open at once. Each holds a thread while it is open;
            single calls have their own threads.
        wait_limits: Ends calls whose client neither sends nor reads; its own by default.
    """

    def __init__(
        self,
        device: Device,
        *,
        keys: ApiKeys | None = None,
        max_streams: int = 16,
        wait_limits: WaitLimits | None = None,
    ) -> None:
        self._device = device
        self._account_of = _everybody if keys is None else keys.account_of
        header = "" if keys is None else keys.header
        self._remedy = f"send a valid API key in the metadata entry {header!r}"
        self._wait_limits = wait_limits or WaitLimits()
        self._stopping = threading.Event()
        unary = Lane(_UNARY_THREADS, "qr-entropy-call", waiting=_WAITING_CALLS)
        streams = Lane(max_streams, "qr-entropy-stream")
        self.lanes: Final = (unary, streams)
        """The threads of the calls; shut down when the server stops."""
        self.refusals: Final = Refusals()
        """The thread that refuses calls, for all services of the server."""
        accounts = ("",) if keys is None else keys.accounts
        self._routes = {
            f"/{_SERVICE}/{_UNARY}": _Route(
                _UNARY,
                unary,
                "too many calls wait for the device; try again",
                {account: self._unary_handler(unary, account) for account in accounts},
            ),
            f"/{_SERVICE}/{_STREAM}": _Route(
                _STREAM,
                streams,
                f"all {max_streams} streams are taken; close one, or use GetEntropy",
                {account: self._stream_handler(streams, account) for account in accounts},
            ),
        }

    def service(self, handler_call_details: Any) -> Handler | None:
        """Returns what answers a call of which only the metadata is there yet."""
        route = self._routes.get(handler_call_details.method)
        if route is None:
            return None
        account = self._account_of(handler_call_details.invocation_metadata)
        if account is None:
            return self._refusal(route.method, grpc.StatusCode.UNAUTHENTICATED, self._remedy)
        if route.lane.is_full:
            return self._refusal(route.method, grpc.StatusCode.RESOURCE_EXHAUSTED, route.full)
        return route.handlers[account]

    def get_entropy(
        self, account: str, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> ServedAnswer:
        """Answers one request of *account*."""
        message = self._wait_limits.only_message(messages, context)
        if message is None:
            self._refuse(
                context, _UNARY, grpc.StatusCode.UNIMPLEMENTED, "the call needs one message"
            )
        request = self._parsed(message, context, _UNARY)
        place = self._place(request, context, account, _UNARY)
        try:
            measured = self._measure(request, context, account, _UNARY)
        except BaseException:
            place.free()
            raise
        wait = self._wait_limits.limit(reading_time_s(len(measured.data)), context.cancel)

        def gone() -> None:
            wait.end()
            place.free()

        place.sending(context.cancel)
        # gRPC returns from sending at once, and calls back when the client has read all of it.
        if not context.add_callback(gone):
            gone()
        return self._last_message(request, measured, measured.data)

    def stream_entropy(
        self, account: str, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[ServedAnswer]:
        """Answers each request of *account* before it looks at the next."""
        self._device.note_streams(1)
        try:
            for message in messages:
                request = self._parsed(message, context, _STREAM)
                place = self._place(request, context, account, _STREAM)
                try:
                    measured = self._measure(request, context, account, _STREAM)
                    reading_s = reading_time_s(len(measured.data))
                    place.sending(context.cancel)
                    with self._wait_limits.limit(reading_s, context.cancel):
                        # Continues when the message has been sent.
                        yield from self._messages(request, measured)
                finally:
                    place.free()
        finally:
            self._device.note_streams(-1)

    def refuse_more(self) -> None:
        """Refuses every further request, also those of streams that are open."""
        self._stopping.set()

    def _unary_handler(self, lane: Lane, account: str) -> Handler:
        # Takes a stream of requests, so that waiting for the only one can be bounded.
        return grpc.stream_unary_rpc_method_handler(
            lane.carries(partial(self.get_entropy, account)), None, serialised
        )

    def _stream_handler(self, lane: Lane, account: str) -> Handler:
        return grpc.stream_stream_rpc_method_handler(
            lane.carries(partial(self.stream_entropy, account)), None, serialised
        )

    def _refusal(self, method: str, code: grpc.StatusCode, details: str) -> Handler | None:
        def refuse(_messages: Iterator[bytes], context: grpc.ServicerContext) -> NoReturn:
            self._refuse(context, method, code, details)

        return self.refusals.carry(refuse)

    def _parsed(self, message: bytes, context: grpc.ServicerContext, method: str) -> EntropyRequest:
        try:
            return EntropyRequest.FromString(message)
        except DecodeError:
            self._refuse(
                context, method, grpc.StatusCode.INTERNAL, "the message is no EntropyRequest"
            )

    def _place(
        self, request: EntropyRequest, context: grpc.ServicerContext, account: str, method: str
    ) -> AnswerPlace:
        # A size that is never served is refused as such, below.
        size = min(max(request.bytes_needed, 0), self._device.max_bytes_per_request)
        try:
            return self._device.answer_memory.take(account or _host(context.peer()), size)
        except CrowdedError as error:
            self._refuse(context, method, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    def _measure(
        self, request: EntropyRequest, context: grpc.ServicerContext, account: str, method: str
    ) -> Measured:
        if self._stopping.is_set():
            self._refuse(
                context, method, grpc.StatusCode.UNAVAILABLE, "the server is being stopped"
            )
        try:
            measured = self._device.measure(
                request.bytes_needed,
                context.time_remaining(),
                commitment=request.commitment,
                account=account,
                is_wanted=context.is_active,
            )
        except MeasurementRefusedError as refusal:
            self._refuse(context, method, _CODES[refusal.kind], refusal.words)
        self._device.note_answer(method, grpc.StatusCode.OK.name)
        return measured

    def _messages(self, request: EntropyRequest, measured: Measured) -> Iterator[ServedAnswer]:
        data = measured.data
        last = (len(data) - 1) // CHUNK_BYTES * CHUNK_BYTES if request.accept_chunks else 0
        if not last:
            yield self._last_message(request, measured, data)
            return
        view = memoryview(data)
        for start in range(0, last, CHUNK_BYTES):
            yield _message(request, measured, view[start : start + CHUNK_BYTES])
        yield self._last_message(request, measured, view[last:])

    def _last_message(
        self, request: EntropyRequest, measured: Measured, data: bytes | memoryview
    ) -> ServedAnswer:
        number = request.sequence_id
        signature = self._device.sign(measured, sequence_id=number)
        record_signature = self._device.witness(measured, sequence_id=number)
        return _message(request, measured, data, signature, record_signature)

    def _refuse(
        self, context: grpc.ServicerContext, method: str, code: grpc.StatusCode, details: str
    ) -> NoReturn:
        peer = context.peer()
        _LOGGER.warning(
            "refused a request from %s: %s: %s",
            peer,
            code.name,
            details,
            extra={"peer": peer, "method": method, "code": code.name},
        )
        self._device.note_answer(method, code.name)
        context.abort(code, details)


def _message(
    request: EntropyRequest,
    measured: Measured,
    data: bytes | memoryview,
    signature: bytes = b"",
    record_signature: bytes = b"",
) -> ServedAnswer:
    return ServedAnswer(
        data,
        request.sequence_id,
        measured.timestamp_ns,
        measured.device_id,
        measured.commitment,
        signature,
        record_signature,
    )


class _Route(NamedTuple):
    """One method."""

    method: str
    lane: Lane
    full: str
    """What a caller is told when the lane is full."""
    handlers: Mapping[str, Handler]
    """What answers the calls of each account."""


def _everybody(_metadata: object) -> str | None:
    """Returns the account that all share where there are no keys."""
    return ""


def _host(peer: str) -> str:
    """Returns what *peer*, in gRPC's form, connects from: several connections of it are alike."""
    return peer.rpartition(":")[0]
