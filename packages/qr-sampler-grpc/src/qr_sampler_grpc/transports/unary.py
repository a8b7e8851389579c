# SPDX-License-Identifier: Apache-2.0
"""One call per request, made on the caller's own thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qr_sampler_grpc.channel import Channel
from qr_sampler_grpc.settings import GrpcOptions
from qr_sampler_grpc.transports.base import AnswerParts, Attempt, Request, unchanged
from qr_sampler_grpc.wire import Answer

__all__ = ["UnaryTransport"]


class UnaryTransport:
    """Calls one after the other, so a failure spends nothing more; see :class:`Transport`.

    Args:
        options: How to reach the server.
    """

    def __init__(self, options: GrpcOptions) -> None:
        self._channel = Channel(options.address, options.tls)
        self._path = options.contract.method_path
        self._wire = options.contract.wire
        self._metadata = options.credentials.metadata if options.credentials else ()

    def answers(self, requests: Sequence[Request], attempt: Attempt) -> Iterator[Answer]:
        """Yields the answers; see :class:`Transport`."""
        call = self._channel.get().unary_unary(self._path, unchanged, unchanged)
        for request in requests:
            # Waiting for the server is what the fallback is for: a refusal fails at once.
            message: bytes = call(
                request.message,
                timeout=attempt.remaining_s(),
                metadata=self._metadata,
                wait_for_ready=False,
            )
            yield AnswerParts(request, attempt).add_all(self._wire.decode(message))

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()
