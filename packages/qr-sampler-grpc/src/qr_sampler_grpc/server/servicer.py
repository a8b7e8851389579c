# SPDX-License-Identifier: Apache-2.0
"""Answers the calls of the wire contract from a device."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Final, NoReturn

import grpc

from qr_sampler_grpc.device import Device, Measured, MeasurementRefusedError, Refusal
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest
from qr_sampler_grpc.server.answers import Answer, serialised
from qr_sampler_grpc.server.keys import ApiKeys

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


class EntropyServicer:
    """Serves *device*: measures when a request has arrived, and only then.

    Args:
        device: Where the bytes come from.
        keys: One of them must be in every call; ``None`` answers everybody.
        max_streams: Most streams that may be open at once. Each holds a thread of the server while
            it is open, so the server needs more threads than this to keep answering single calls.
    """

    def __init__(
        self, device: Device, *, keys: ApiKeys | None = None, max_streams: int = 16
    ) -> None:
        self._device = device
        self._keys = keys
        self._max_streams = max_streams
        self._free_streams = threading.BoundedSemaphore(max_streams)
        self._stopping = threading.Event()

    def add_to(self, server: grpc.Server) -> None:
        """Offers both methods on *server*, which has not started yet."""
        handlers = {
            _UNARY: grpc.unary_unary_rpc_method_handler(
                self.GetEntropy, EntropyRequest.FromString, serialised
            ),
            _STREAM: grpc.stream_stream_rpc_method_handler(
                self.StreamEntropy, EntropyRequest.FromString, serialised
            ),
        }
        generic = grpc.method_handlers_generic_handler(_SERVICE, handlers)
        server.add_generic_rpc_handlers((generic,))

    # The names of the two methods are the contract's.
    def GetEntropy(  # noqa: N802
        self, request: EntropyRequest, context: grpc.ServicerContext
    ) -> Answer:
        """Answers one request."""
        account = self._authenticate(context, _UNARY)
        measured = self._measure(request, context, account, _UNARY)
        return self._last_message(request, measured, measured.data)

    def StreamEntropy(  # noqa: N802
        self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
    ) -> Iterator[Answer]:
        """Answers each request of a stream before it looks at the next."""
        account = self._authenticate(context, _STREAM)
        if not self._free_streams.acquire(blocking=False):
            self._refuse(
                context,
                _STREAM,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"all {self._max_streams} streams are taken; close one, or use GetEntropy",
            )
        self._device.note_streams(1)
        try:
            for request in request_iterator:
                yield from self._messages(
                    request, self._measure(request, context, account, _STREAM)
                )
        finally:
            self._device.note_streams(-1)
            self._free_streams.release()

    def refuse_more(self) -> None:
        """Refuses every further request, also those of streams that are open."""
        self._stopping.set()

    def _authenticate(self, context: grpc.ServicerContext, method: str) -> str:
        if self._keys is None:
            return ""
        account = self._keys.account_of(context.invocation_metadata())
        if account is None:
            self._refuse(
                context,
                method,
                grpc.StatusCode.UNAUTHENTICATED,
                f"send a valid API key in the metadata entry {self._keys.header!r}",
            )
        return account

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

    def _messages(self, request: EntropyRequest, measured: Measured) -> Iterator[Answer]:
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
    ) -> Answer:
        signature = self._device.sign(
            measured, sequence_id=request.sequence_id, commitment=request.commitment
        )
        return _message(request, measured, data, signature)

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
    request: EntropyRequest, measured: Measured, data: bytes | memoryview, signature: bytes = b""
) -> Answer:
    return Answer(
        data,
        request.sequence_id,
        measured.timestamp_ns,
        measured.device_id,
        request.commitment,
        signature,
    )
