# SPDX-License-Identifier: Apache-2.0
"""How one request reaches the server and its answer comes back."""

from __future__ import annotations

from typing import Protocol

from qr_sampler_grpc.channel import Channel
from qr_sampler_grpc.credentials import ApiKey

__all__ = ["Transport", "UnaryTransport"]


class Transport(Protocol):
    """Carries serialised messages; knows nothing of what is in them.

    Threads may share an instance. An answer that arrives after its deadline is dropped, so it can
    never be taken for the answer to a later request.
    """

    def fetch(self, request: bytes, *, timeout_s: float) -> bytes:
        """Returns the server's answer to *request*.

        Args:
            request: Serialised request message.
            timeout_s: Seconds until the call is given up, greater than zero.

        Raises:
            grpc.RpcError: When the call ends with another status than OK.
            ChannelUnusableError: In a forked process that gRPC does not support.
            ValueError: When another thread closed the channel as the call began.
        """
        ...

    def close(self) -> None:
        """Ends calls under way and releases the connection. May be called more than once."""
        ...


class UnaryTransport:
    """One call per request, made on the caller's own thread."""

    def __init__(self, channel: Channel, method_path: str, credentials: ApiKey | None) -> None:
        self._channel = channel
        self._method_path = method_path
        self._metadata = credentials.metadata if credentials else ()

    def fetch(self, request: bytes, *, timeout_s: float) -> bytes:
        """Returns the server's answer to *request*; see :class:`Transport`."""
        call = self._channel.get().unary_unary(self._method_path, _unchanged, _unchanged)
        # Waiting for the server is what the fallback is for, so a refused connection fails at once.
        answer: bytes = call(
            request, timeout=timeout_s, metadata=self._metadata, wait_for_ready=False
        )
        return answer

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


def _unchanged(message: bytes) -> bytes:
    return message
