# SPDX-License-Identifier: Apache-2.0
"""The connection to a server: opened on first use, and anew in a forked process."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

import grpc

from qr_sampler.per_process import PerProcess
from qr_sampler_grpc.connection.address import Address
from qr_sampler_grpc.connection.fork_guard import FORK_GUARD
from qr_sampler_grpc.connection.large_blocks import keep_large_blocks
from qr_sampler_grpc.connection.tls import ClientTls
from qr_sampler_grpc.connection.unix_socket import reason_to_distrust

__all__ = ["Channel", "ChannelUnusableError"]

_OPTIONS: Final = (
    # A connection belongs to one process: a shared pool would hand the parent's socket to a child.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's own defaults wait up to two minutes before they try a restarted server again. Calls in
    # between fail at once, so the length of the pause is how long a recovered server goes unused.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # How long one attempt to connect may take where packets vanish instead of being refused.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    # Finds out during a call that the path has gone dead, and lets the kernel give up what nobody
    # acknowledges. Servers by default end a connection that is pinged more often than every five
    # minutes.
    ("grpc.keepalive_time_ms", 360_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
# A proxy can only lead away from an address of this machine.
_OWN_OPTIONS: Final = (("grpc.enable_http_proxy", 0),)


class ChannelUnusableError(RuntimeError):
    """No connection can be made from this process; the message states why and what to do."""


class Channel:
    """A gRPC channel that may be constructed before a fork and used after it.

    Threads may share an instance. Nothing is opened before :meth:`get`; a channel that a parent
    process opened is never used in its child.

    Args:
        address: Where the server listens.
        tls: How the connection is encrypted; ``None`` leaves it unencrypted.
        max_message_bytes: Largest message that is received. A larger one, also one that becomes
            larger when it is decompressed, ends its call before it takes up memory.
        aio: Whether to use gRPC's asyncio interface, in its own thread.
    """

    def __init__(
        self,
        address: Address,
        tls: ClientTls | None = None,
        *,
        max_message_bytes: int,
        aio: bool = False,
    ) -> None:
        self.address = address
        self._max_message_bytes = max_message_bytes
        self._tls = tls
        self._aio = aio
        self._channels: PerProcess[Any] = PerProcess(self._open, lambda channel: channel.close())

    def get(self) -> Any:
        """Returns this process's channel, opening it when there is none yet.

        Raises:
            ChannelUnusableError: In a forked process that gRPC does not support, when a file of
                TLS has become unreadable, or when a socket belongs to somebody else.
        """
        if self.address.path:
            self._check_owner()
        return self._channels.get()

    def _check_owner(self) -> None:
        # Checked every time: gRPC reconnects by itself, to whatever is there by then.
        try:
            reason = reason_to_distrust(self.address.path)
        except OSError:
            # Missing or not accessible; connecting will report it.
            return
        if reason:
            raise ChannelUnusableError(f"{self.address} is not believed: {reason}")

    def _open(self) -> Any:
        if reason := FORK_GUARD.reason_to_refuse():
            raise ChannelUnusableError(reason)
        keep_large_blocks()
        options = (
            *_OPTIONS,
            *(_OWN_OPTIONS if self.address.is_own else ()),
            ("grpc.max_receive_message_length", self._max_message_bytes),
        )
        if self._tls is None:
            return self._interface.insecure_channel(self.address.target, options=options)
        try:
            credentials = self._tls.credentials()
        except OSError as error:
            raise ChannelUnusableError(
                f"cannot read {error.filename}: {error.strerror}; restore the file"
            ) from error
        return self._interface.secure_channel(self.address.target, credentials, options=options)

    @property
    def _interface(self) -> ModuleType:
        if not self._aio:
            return grpc
        from qr_sampler_grpc.connection import aio_channel

        return aio_channel

    def close(self) -> None:
        """Closes this process's channel and cancels its calls; :meth:`get` opens another."""
        channel = self._channels.pop()
        if channel is not None:
            channel.close()
