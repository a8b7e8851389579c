# SPDX-License-Identifier: Apache-2.0
"""One call per request, made on the caller's own thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qr_sampler_grpc.protocol.wire import Answer
from qr_sampler_grpc.transports.base import (
    AnswerParts,
    Attempt,
    ChannelTransport,
    PreparedRequest,
)

__all__ = ["UnaryTransport"]


class UnaryTransport(ChannelTransport):
    """Calls one after the other, so a failure spends nothing more; see :class:`Transport`.

    Args:
        options: How to reach the server.
    """

    def answers(self, requests: Sequence[PreparedRequest], attempt: Attempt) -> Iterator[Answer]:
        """Yields the answers; see :class:`Transport`."""
        call = self._channel.get().unary_unary(self._path)
        for request in requests:
            # Waiting for the server is what the fallback is for: a refusal fails at once.
            message: bytes = call(
                request.message,
                timeout=attempt.remaining_s(),
                metadata=self._metadata,
                wait_for_ready=False,
            )
            yield AnswerParts(request, attempt).add_all(self._wire.decode(message))
