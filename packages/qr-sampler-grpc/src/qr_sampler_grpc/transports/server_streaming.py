# SPDX-License-Identifier: Apache-2.0
"""One call per request, whose answer may come in several messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qr_sampler_grpc.protocol.wire import Answer
from qr_sampler_grpc.transports.base import (
    AnswerParts,
    Attempt,
    ChannelTransport,
    PreparedRequest,
)

__all__ = ["ServerStreamingTransport"]


class ServerStreamingTransport(ChannelTransport):
    """Sends one request on the streaming method and no more; see :class:`Transport`.

    On the wire a client that sends a single message looks the same to a method that takes a stream
    as to one that takes a message. gRPC spends a thread on the former and none on the latter.

    Args:
        options: How to reach the server.
    """

    def answers(self, requests: Sequence[PreparedRequest], attempt: Attempt) -> Iterator[Answer]:
        """Yields the answers; see :class:`Transport`."""
        method = self._channel.get().unary_stream(self._path)
        for request in requests:
            call = method(
                request.message,
                timeout=attempt.remaining_s(),
                metadata=self._metadata,
                wait_for_ready=False,
            )
            try:
                yield self._answer(call, AnswerParts(request, attempt))
            finally:
                # Anything after the answer is unwanted.
                call.cancel()

    def _answer(self, messages: Iterator[bytes], parts: AnswerParts) -> Answer:
        for message in messages:
            if parts.add(self._wire.decode(message)):
                return parts.whole
        raise parts.unfit()
