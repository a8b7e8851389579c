# SPDX-License-Identifier: Apache-2.0
"""Answers the calls of the wire contract from any entropy source."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Final, NoReturn

import grpc

from qr_sampler.entropy import EntropyDraw, EntropySource
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_grpc.credentials import ApiKey
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.proto.entropy_service_pb2_grpc import EntropyServiceServicer

__all__ = ["EntropyServicer"]

_LOGGER: Final = logging.getLogger("qr_sampler.grpc")


class EntropyServicer(EntropyServiceServicer):
    """Serves *source*: draws when a request has arrived, and only then.

    Args:
        source: Where the bytes come from; called from several threads at once, never closed.
        device_id: Identity to report; the source's name when empty.
        credentials: Key that every call must carry; ``None`` answers everybody.
        max_bytes_per_request: Largest request that is answered.
        max_streams: Most streams that may be open at once. Each holds a thread of the server while
            it is open, so the server needs more threads than this to keep answering single calls.
    """

    def __init__(
        self,
        source: EntropySource,
        device_id: str = "",
        *,
        credentials: ApiKey | None = None,
        max_bytes_per_request: int = 16 * 2**20,
        max_streams: int = 16,
    ) -> None:
        self._source = source
        self._device_id = device_id or source.name
        self._credentials = credentials
        self._max_bytes_per_request = max_bytes_per_request
        self._max_streams = max_streams
        self._free_streams = threading.BoundedSemaphore(max_streams)

    # The names of the two methods are the contract's.
    def GetEntropy(  # noqa: N802
        self, request: EntropyRequest, context: grpc.ServicerContext
    ) -> EntropyResponse:
        """Answers one request."""
        self._authenticate(context)
        return self._answer(request, context)

    def StreamEntropy(  # noqa: N802
        self, request_iterator: Iterator[EntropyRequest], context: grpc.ServicerContext
    ) -> Iterator[EntropyResponse]:
        """Answers each request of a stream before it looks at the next."""
        self._authenticate(context)
        if not self._free_streams.acquire(blocking=False):
            _refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"all {self._max_streams} streams are taken; close one, or use GetEntropy",
            )
        try:
            for request in request_iterator:
                yield self._answer(request, context)
        finally:
            self._free_streams.release()

    def _authenticate(self, context: grpc.ServicerContext) -> None:
        if self._credentials is None or self._credentials.is_in(context.invocation_metadata()):
            return
        _refuse(
            context,
            grpc.StatusCode.UNAUTHENTICATED,
            f"send a valid API key in the metadata entry {self._credentials.header!r}",
        )

    def _answer(self, request: EntropyRequest, context: grpc.ServicerContext) -> EntropyResponse:
        self._check_size(request.bytes_needed, context)
        draw = self._draw(request.bytes_needed, context)
        return EntropyResponse(
            data=draw.data,
            sequence_id=request.sequence_id,
            generation_timestamp_ns=draw.wall_time_ns,
            device_id=self._device_id,
        )

    def _check_size(self, bytes_needed: int, context: grpc.ServicerContext) -> None:
        if not 1 <= bytes_needed <= self._max_bytes_per_request:
            _refuse(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                f"bytes_needed={bytes_needed}; ask for 1 to {self._max_bytes_per_request}",
            )

    def _draw(self, bytes_needed: int, context: grpc.ServicerContext) -> EntropyDraw:
        try:
            draw = self._source.draw(bytes_needed)
        except EntropyUnavailableError as error:
            _refuse(context, grpc.StatusCode.UNAVAILABLE, str(error))
        if draw.fallback:
            # The contract has no way to flag them, and unflagged they would pass for the device's.
            _refuse(
                context,
                grpc.StatusCode.UNAVAILABLE,
                f"only fallback bytes are to be had ({draw.fallback_reason})",
            )
        return draw


def _refuse(context: grpc.ServicerContext, code: grpc.StatusCode, details: str) -> NoReturn:
    _LOGGER.warning("refused a request from %s: %s: %s", context.peer(), code.name, details)
    context.abort(code, details)
